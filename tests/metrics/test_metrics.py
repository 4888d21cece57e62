"""Metrics by name: which apply, what they need, how they are printed."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from jaxflow.errors import RunError, UsageError
from jaxflow.metrics import (
  METRICS,
  Confidences,
  Estimate,
  Moments,
  SampleSummary,
  Score,
  compare,
  precision_recall,
  score,
  table,
)
from jaxflow.metrics.table import row_of

MIXTURE = SimpleNamespace(
  means=[[0.0, 0.0], [9.0, 0.0]], stds=[1.0, 1.0], weights=[0.5, 0.5]
)


def moments_of(rows):
  mean = rows.mean(0)
  return Moments(len(rows), mean, (rows - mean).T @ (rows - mean))


def drawn(seed, *networks, num=60, shift=0.0, size=2):
  """Make labelled points that networks have seen."""
  generator = np.random.default_rng(seed)
  samples = generator.standard_normal((num, size)) + shift
  features = {n: generator.standard_normal((num, 5)) for n in networks}
  logits = {n: generator.standard_normal((num, 3)) for n in networks}
  moments = {n: moments_of(x) for n, x in features.items()}
  moments |= {f"{n}_spatial": moments_of(x) for n, x in features.items()}
  sums = Confidences.empty(3)
  return SampleSummary(
    num=num,
    samples=samples,
    label=np.arange(num) % 3,
    features=features,
    moments=moments,
    confidences={n: sums.update(x, np.arange(num)) for n, x in logits.items()},
    logits=logits,
  )


def only(full, *fields):
  """Keep some fields of a set."""
  return SampleSummary(
    num=full.num, **{name: getattr(full, name) for name in fields}
  )


OF_SAMPLES = {
  *("sliced_wasserstein", "energy_distance", "mmd", "wasserstein"),
}
SHARES = {"precision", "recall", "density", "coverage"}


def test_points_alone_have_metrics_of_samples():
  a, b = (only(drawn(seed), "samples") for seed in (0, 1))
  assert set(compare(a, b)) == OF_SAMPLES | SHARES
  assert set(compare(a, b, mixture=MIXTURE)) == (
    OF_SAMPLES | SHARES | {"mode_coverage", "high_quality"}
  )


def test_networks_name_their_numbers():
  a, b = (drawn(seed, "inception", "other") for seed in (0, 1))
  found = compare(a, b)
  assert set(found) == OF_SAMPLES | {
    *("recognised", "fid", "sfid", "kid", "inception_score"),
    *("fd_other", "kid_other"),
    *(f"{n}_{net}" for n in SHARES for net in ("inception", "other")),
    *("accuracy_inception", "accuracy_other"),
  }
  # What is left out for a network's sake can be asked for, under any name.
  assert set(compare(a, b, names=["fd_inception", "recall"])) == {
    *("fd_inception", "recall"),
  }
  assert compare(a, b, names=["fd_inception"])["fd_inception"] == found["fid"]
  order = [list(METRICS).index(row_of(name)) for name in found]
  assert order == sorted(order)


def test_statistics_of_a_file_are_enough_for_a_frechet_distance():
  a, b = drawn(0, "inception"), only(drawn(1, "inception"), "moments")
  found = compare(a, b)
  assert {"fid", "sfid", "inception_score"} <= set(found)
  assert not {"recognised", "precision_inception"} & set(found)
  assert found["fid"].error > 0


def test_a_share_is_that_of_its_function():
  a, b = drawn(0, "net"), drawn(1, "net")
  found = compare(a, b, k=4)
  expected = precision_recall(b.features["net"], a.features["net"], 4)
  for name in SHARES:
    assert found[f"{name}_net"] == getattr(expected, name)
  samples = compare(a, b, names=["density"])["density"]
  assert samples == precision_recall(b.samples, a.samples).density


@pytest.mark.parametrize(
  ("name", "words"),
  [
    ("fidd", "'fidd': unknown; did you mean 'fid'"),
    ("recal", "did you mean 'recall'"),
    ("fd_vgg", "no network 'vgg'; choose among inception, net"),
    ("accuracy_net", "needs labels of the samples"),
    ("recognised", "needs labels of both sets, of two classes or more"),
    ("mode_coverage", "needs data whose mixture is known"),
    ("fid", "needs moments of both sets by the network 'inception'"),
    ("inception_score", "needs the network's confidences"),
  ],
)
def test_what_the_data_do_not_allow_is_said(name, words):
  fields = "samples", "features", "moments", "confidences", "logits"
  a, b = (only(drawn(seed, "net"), *fields) for seed in (0, 1))
  with pytest.raises(UsageError, match=words) as caught:
    compare(a, b, names=[name])
  assert "\n" not in str(caught.value)


def test_too_few_samples_are_counted():
  with pytest.raises(UsageError, match=r"'precision': 3 samples are.* least 4"):
    compare(drawn(0, num=3), drawn(1), names=["precision"])
  with pytest.raises(UsageError, match=r"'precision': 4 samples are.* least 5"):
    compare(drawn(0), drawn(1, num=4), names=["precision"], k=4)
  with pytest.raises(UsageError, match="'sliced_wasserstein': 1 samples"):
    compare(drawn(0, num=1), drawn(1), names=["sliced_wasserstein"])


def test_what_is_not_finite_is_said():
  good, bad = drawn(0), drawn(1)
  bad.samples[3:5] = math.nan
  with pytest.raises(RunError, match="generated samples: 2 of 60 samples are"):
    compare(bad, good)
  with pytest.raises(UsageError, match="reference: 2 of 60 samples are not"):
    compare(good, bad)
  moments = {"net": Moments(9, np.zeros(2), np.full((2, 2), math.inf))}
  broken = SampleSummary(num=9, moments=moments)
  with pytest.raises(UsageError, match="'fd_net': moments are not finite"):
    compare(broken, broken, names=["fd_net"])


def test_wrong_sizes_are_said():
  a, b = drawn(0, "net"), drawn(1, "net", size=3)
  with pytest.raises(UsageError, match=r"'recall'.*\(2,\).*\(3,\)"):
    compare(a, b, names=["recall"])
  b.features["net"] = np.zeros((60, 4))
  with pytest.raises(UsageError, match=r"'recall_net'.*\(5,\).*\(4,\)"):
    compare(a, b, names=["recall_net"])
  with pytest.raises(UsageError, match="60 samples, 59 labels"):
    SampleSummary(num=60, samples=a.samples, label=np.zeros(59))
  with pytest.raises(UsageError, match="num=59: 60 samples"):
    SampleSummary(num=59, samples=a.samples)
  with pytest.raises(UsageError, match="num=0"):
    SampleSummary(num=0)


def test_the_floor_stands_beside_the_value():
  near, far, real = (
    only(drawn(s, num=n, shift=x), "samples", "label")
    for s, n, x in ((0, 50, 0.0), (1, 40, 3.0), (2, 60, 0.0))
  )
  found = score(far, real, near)
  values, floor = compare(far, real), compare(near, real)
  # A class is asked of what fresh samples teach.
  values |= compare(far, near, names=["recognised"])
  floor |= compare(real, near, names=["recognised"])
  assert list(found) == list(values) and "recognised" in found
  for name, item in found.items():
    assert (item.value, item.error) == (values[name].value, values[name].error)
    assert (item.real, item.real_error) == (
      floor[name].value,
      floor[name].error,
    )
    assert (item.num, item.real_num) == (40, 60 if name == "recognised" else 50)
  alone = score(far, real, names=["recall"])["recall"]
  assert (alone.real, alone.real_error, alone.real_num) == (None, None, None)


def test_table():
  near = Score(0.5, 0.01, 0.25, 0.02, 2000, 2000)
  far = Score(2.0, None, num=50_000)
  tiny = Score(1.23e-5, 4e-6, 2e-6, 3e-6, 50_000, 10_000)
  text = table(
    {
      "a [step]": {"recall": near, "energy_distance": near},
      "b" * 90: {"energy_distance": far, "precision_efficientnet_lite0": tiny},
      "likelihood": {"bits_per_dimension": far},
    }
  )
  lines = text.splitlines()
  assert max(map(len, lines)) <= 100
  beside = [line for line in lines if line.startswith("  energy_distance")]
  assert beside[0].split() == (
    "energy_distance ↓ a [step] 2000 0.5000 ± 0.0100 0.2500 ± 0.0200".split()
  )
  assert text.count("b") >= 90 and "2.0000" in text
  assert "1.23e-05 ± 4.00e-06" in text and "50000/10000" in text
  places = [
    text.index(name)
    for name in (
      *("energy_distance", "recall", "precision_efficientnet_lite0"),
      "bits_per_dimension",
    )
  ]
  assert places == sorted(places)
  with pytest.raises(UsageError, match="'loss' is unknown"):
    table({"run": {"loss": near}})


def test_intervals():
  assert Score(1.0, 0.5).interval == (1 - 0.98, 1 + 0.98)
  # The 97.5 % point of Student's law with nine degrees of freedom.
  low, high = Estimate(value=1.0, error=1.0, degrees=9).interval
  assert (1 - low, high - 1) == pytest.approx((2.2622, 2.2622), abs=1e-4)
  assert Score(1.0, None).interval == (-math.inf, math.inf)
