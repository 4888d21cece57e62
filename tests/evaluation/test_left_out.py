"""Numbers that cannot be trusted or computed are left out, with the reason."""

import dataclasses
import errno
import math
import os

import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import tiny

import jaxflow
from jaxflow import data as data_lib
from jaxflow import paths
from jaxflow.errors import NotFiniteError, RunError, UsageError
from jaxflow.evaluation import networks
from jaxflow.metrics import METRICS, Estimate, SampleSummary
from jaxflow.metrics.comparison import compare

RING = data_lib.known_mixture("ring")
FLOW = {"num": 64, "steps": 32}
NLL = "negative_log_likelihood"


def trained(
  *,
  data=None,
  network=None,
  log=lambda line: None,
  data_share=None,
  data_conditional=False,
  **sections,
):
  """Train two steps, or an exact network that has nothing to learn."""
  config = jaxflow.preset("ring:flow_matching")
  config.data.conditional = data_conditional
  config.data.test_share = data_share
  config.model.update(width=16, depth=1, time_features=8)
  config.train.update(steps=2, batch_size=16, steps_per_dispatch=1)
  config.train.sample_every = 0
  config.sample.ema = "online"
  config.evaluation.update(num=40, kept=200, nfe=(1,))
  config.evaluation.flow.update(num=0)
  for name, fields in sections.items():
    if name == "flow":
      config.evaluation.flow.update(fields)
    elif name == "path":
      config.path = fields
    else:
      config[name].update(fields)
  return jaxflow.train(config, data=data, network=network, log=log)


def exact(function, factor=1.0):
  """Return a network that is a function times a factor."""
  return jaxflow.Network(
    lambda key: {"unused": jnp.zeros(())},
    lambda params, xt, t, s, cond, key=None: (
      factor * function(xt, t) + 0 * params["unused"]
    ),
  )


def evaluated(run):
  """Return rows by number of calls, and the lines that were said."""
  lines = []
  rows = run.evaluate(log=lines.append)
  return {row["nfe"]: row for row in rows}, lines


def refused(action):
  with pytest.raises((UsageError, RunError)) as caught:
    action()
  line = str(caught.value)
  assert "\n" not in line
  return line


def ring_law(path):
  return oracle.Mixture(path, RING.weights, RING.means, RING.stds)


PATHS = {
  "linear": (paths.Linear(), {"name": "linear"}),
  "trigonometric": (paths.Trigonometric(), {"name": "trigonometric"}),
  "vp": (
    paths.VariancePreserving(t_min=1e-3),
    {"name": "variance_preserving", "t_min": 1e-3},
  ),
}


class TestLikelihood:
  @pytest.mark.parametrize("path", PATHS)
  def test_exact_data_have_the_likelihood_of_their_law(self, path):
    law, fields = PATHS[path]
    run = trained(
      network=exact(ring_law(law).data),
      path=fields,
      loss={"prediction": "data"},
      flow=FLOW,
    )
    rows, lines = evaluated(run)
    score = rows[None]["scores"][NLL]
    # Beside it stands the true law of the same samples.
    assert score.value == pytest.approx(score.real, abs=0.05)
    assert not any("left out" in line for line in lines)

  @pytest.mark.parametrize("path", ["linear", "trigonometric"])
  def test_errors_that_grow_near_data_are_told(self, path):
    law, fields = PATHS[path]
    run = trained(
      network=exact(ring_law(law).data, 1.05),
      path=fields,
      loss={"prediction": "data"},
      flow=FLOW,
    )
    rows, lines = evaluated(run)
    assert NLL not in rows[None]["scores"]
    reason = rows[None]["left_out"][NLL]
    assert reason.startswith(f"{NLL}=") and "without t < 0.001" in reason
    assert "prediction of data" in reason and "another prediction" in reason
    assert f"{NLL} is left out: {reason}" in lines
    assert {"straightness", "curvature"} <= set(rows[None]["scores"])

  def test_errors_of_noise_stay_small_near_data(self):
    law, fields = PATHS["vp"]
    run = trained(
      network=exact(ring_law(law).noise, 1.02),
      path=fields,
      loss={"prediction": "noise"},
      flow=FLOW,
    )
    score = evaluated(run)[0][None]["scores"][NLL]
    assert score.value == pytest.approx(score.real, abs=0.3)

  def test_a_path_without_a_velocity_at_its_end_is_told(self):
    rows, lines = evaluated(
      trained(path={"name": "variance_preserving"}, flow=FLOW)
    )
    assert set(rows) == {1}
    told = [line for line in lines if "left out: path.t_min=0: " in line]
    assert len(told) == 4 and "train with path.t_min=0.001" in told[0]

  def test_a_likelihood_that_is_named_is_refused(self):
    run = trained(
      network=exact(ring_law(paths.Linear()).data, 1.05),
      loss={"prediction": "data"},
      flow=FLOW,
      evaluation={"metrics": NLL},
    )
    assert refused(run.evaluate).startswith(f"{NLL}=")

  def narrow(self, steps):
    """Data whose velocity turns within a thousandth of the path."""
    std, draw = 1e-3, np.random.default_rng(0).standard_normal
    splits = {name: {"data": std * draw((64, 2))} for name in ("train", "test")}
    return evaluated(
      trained(
        data=splits,
        network=exact(oracle.Gaussian(paths.Linear(), (0, 0), std).velocity),
        flow=FLOW | {"steps": steps},
      )
    )[0][None]

  def test_too_few_steps_are_told_and_more_of_them_help(self):
    row = self.narrow(16)
    reason = row["left_out"][NLL]
    assert NLL not in row["scores"]
    assert "in 64 steps" in reason and "in 128" in reason
    assert reason.endswith("raise evaluation.flow.steps")
    found = self.narrow(2048)["scores"][NLL].value
    # Of N(0, s^2 I) in the plane: log(2 pi s^2) + 1; the mean of 64 samples of
    # a chi-square law deviates by 1 / 8.
    expected = math.log(2 * math.pi * 1e-6) + 1
    assert found == pytest.approx(expected, abs=0.5)

  def test_steps_are_doubled_until_they_are_enough(self):
    run = trained(
      network=exact(ring_law(paths.Linear()).velocity),
      flow=FLOW | {"steps": 4},
    )
    score = evaluated(run)[0][None]["scores"][NLL]
    assert score.value == pytest.approx(score.real, abs=0.1)


def picture(num, kind):
  """Pictures of 8 x 8, nearly all constant or all different."""
  images = np.full((num, 8, 8, 1), -1.0, np.float32)
  generator = np.random.default_rng(num)
  few = slice(None) if kind == "noise" else slice(0, num // 8)
  images[few] = generator.uniform(-1, 1, images[few].shape)
  return {"data": images}


class TestMetrics:
  def test_what_does_not_apply_leaves_the_others(self):
    kinds = {"train": picture(48, "constant"), "test": picture(40, "constant")}
    rows, lines = evaluated(trained(data=kinds))
    row = rows[1]
    assert "bandwidth is 0" in row["left_out"]["mmd"]
    assert {"sliced_wasserstein", "energy_distance"} <= set(row["scores"])
    assert not set(row["left_out"]) & set(row["scores"])
    told = [line for line in lines if line.startswith("mmd is left out: ")]
    assert len(told) == 1

  def test_what_is_named_is_refused(self):
    kinds = {"train": picture(48, "constant"), "test": picture(40, "constant")}
    run = trained(data=kinds, evaluation={"metrics": "mmd,recall"})
    assert refused(run.evaluate).startswith("metric 'mmd': bandwidth is 0")

  def test_a_grid_that_does_not_fit_leaves_the_others(self):
    run = trained(
      flow=FLOW,
      sample={"grid": {"name": "given", "values": (1.0, 0.0)}, "nfe": 1},
    )
    rows, lines = evaluated(run)
    assert set(rows) == {1} and "sliced_wasserstein" in rows[1]["scores"]
    assert sum("sample.grid=" in line for line in lines) == 4

  def test_too_few_and_not_finite_are_reasons(self, monkeypatch):
    draw = np.random.default_rng(0).standard_normal
    few, many = (
      SampleSummary(num=n, samples=draw((n, 2)), features={"net": x})
      for n, x in ((9, draw((9, 2))), (40, draw((40, 2))))
    )
    reasons = {}
    found = compare(few, many, left_out=reasons.__setitem__)
    assert reasons["kid_net"].startswith("9 samples are too few")
    assert "kid_net" not in found and "recall_net" in found
    # Without a place for reasons nothing changes: it is not among the metrics.
    assert set(compare(few, many)) == set(found)
    broken = Estimate(value=math.nan, error=None)
    row = dataclasses.replace(METRICS["mmd"], compute=lambda inputs: broken)
    monkeypatch.setitem(METRICS, "mmd", row)
    reasons = {}
    compare(few, many, left_out=reasons.__setitem__)
    assert reasons["mmd"] == "its value nan is not finite"
    with pytest.raises(NotFiniteError, match=r"^metric 'mmd': its value nan"):
      compare(few, many, names=["mmd"])


class TestNothing:
  def test_a_test_split_of_one_is_told(self):
    splits = {"train": picture(40, "noise"), "test": picture(1, "noise")}
    line = refused(trained(data=splits).evaluate)
    assert line.startswith("evaluation.split='test': 1 samples")
    assert "give more data" in line

  def test_so_is_one_fresh_sample(self):
    splits = {"train": picture(1, "noise"), "test": picture(40, "noise")}
    line = refused(trained(data=splits).evaluate)
    assert "1 fresh" in line

  def test_training_that_could_evaluate_nothing_is_refused(self, tmp_path):
    splits = {"train": picture(40, "noise"), "test": picture(1, "noise")}
    config = trained(data=splits).config.copy_and_resolve_references()
    with config.unlocked():
      config.evaluation.during.every = 1
      config.data.update(shape=None, num_classes=None)
    line = refused(lambda: jaxflow.train(config, tmp_path / "a", data=splits))
    assert line.startswith("evaluation.split='test': 1 samples")

  @pytest.mark.parametrize(
    ("flow", "metric", "words"),
    [
      ({}, "curvature", "evaluation.flow.num=0"),
      (FLOW, "bits_per_dimension", "evaluation.flow.levels=0"),
    ],
  )
  def test_a_number_that_is_off_is_told(self, flow, metric, words):
    run = trained(flow=flow, evaluation={"metrics": metric})
    line = refused(run.evaluate)
    assert line.startswith(f"evaluation.metrics {metric!r}: ")
    assert words in line

  def test_so_is_one_of_another_method(self, tmp_path):
    workdir = tiny.train(
      tmp_path, "run", "consistency_training", "train.steps=5"
    )
    result = tiny.run(
      "evaluate",
      f"--workdir={workdir}",
      "--config.evaluation.metrics=curvature",
    )
    assert result.code == 2 and result.err.count("\n") == 1
    assert "is no velocity" in result.err and not result.out


class TestOneSplit:
  def test_its_halves_are_compared_as_the_message_says(self):
    only = picture(41, "noise")
    line = refused(trained(data=only).evaluate)
    assert line.startswith("evaluation.split='test': data.name='given' has no")
    assert "set evaluation.split=train" in line
    run = trained(data=only, evaluation={"split": "train"}, flow=FLOW)
    rows, lines = evaluated(run)
    assert rows[1]["reference"] == {"split": "train", "num": 21}
    score = rows[1]["scores"]["sliced_wasserstein"]
    assert score.real_num == 20 and score.real > 0
    assert any("has one split" in line for line in lines)
    assert rows[1]["floor"] == {"split": "train", "num": 20, "half": True}
    assert any("floor is of 20 other real samples" in line for line in lines)

  def test_or_a_share_is_held_out(self):
    run = trained(data=picture(41, "noise"), data_share=0.4)
    rows, lines = evaluated(run)
    held = rows[1]["reference"]["num"]
    assert rows[1]["reference"]["split"] == "test" and 5 < held < 30
    floor = {"split": "train", "num": min(40, 41 - held), "half": False}
    assert rows[1]["floor"] == floor
    assert any("of the split train of given" in line for line in lines)

  def test_the_halves_are_apart_and_stay(self):
    run = trained(data=picture(41, "noise"), evaluation={"split": "train"})
    from jaxflow.evaluation.streams import real_parts

    first, second = real_parts(run.run.plan)
    together = np.concatenate([first.rows, second.rows])
    assert sorted(together) == list(range(41))
    again = real_parts(run.run.plan)
    np.testing.assert_array_equal(again[0].rows, first.rows)

  def test_a_classifier_needs_held_out_images(self, tmp_path):
    only = picture(40, "noise") | {"labels": np.arange(40) % 2}
    run = trained(
      data=only,
      evaluation={
        "split": "train",
        "network": {"name": "classifier", "train_steps": 1},
      },
    )
    plan = run.run.plan
    line = refused(
      lambda: networks.make_extractor(plan.evaluation, plan.data, tmp_path)
    )
    assert line.startswith("evaluation.network.name='classifier' needs")
    assert "no test split" in line


class TestSamplesWithoutAClass:
  def test_they_count_for_no_metric_of_classes(self):
    generator = np.random.default_rng(0)
    samples = generator.normal(size=(60, 3))
    label = np.arange(60) % 3 - 1  # A third has none.
    half = np.arange(60) < 30
    sets, without = (
      [
        SampleSummary(num=len(samples[x]), samples=samples[x], label=label[x])
        for x in rows
      ]
      for rows in (
        (half, ~half),
        (half & (label >= 0), ~half & (label >= 0)),
      )
    )
    found, expected = (
      compare(*pair, names=["recognised"])["recognised"]
      for pair in (sets, without)
    )
    assert (found.value, found.error) == (expected.value, expected.error)

  def test_a_run_on_them_trains_and_is_evaluated(self):
    points = np.random.default_rng(0).normal(size=(80, 2)).astype(np.float32)
    part = {"data": points, "labels": np.arange(80) % 3 - 1}
    run = trained(data={"train": part, "test": part}, data_conditional=True)
    assert run.config.data.num_classes == 2
    rows, _ = evaluated(run)
    value = rows[1]["scores"]["recognised"].value
    # Of 40 samples two thirds have a class: the share is of these.
    assert any(value * n == pytest.approx(round(value * n)) for n in (26, 27))

  def test_a_classifier_is_trained_on_the_others(self, tmp_path):
    images = picture(60, "noise") | {"labels": np.arange(60) % 3 - 1}
    network = {"name": "classifier", "train_steps": 1}
    run = trained(
      data={"train": images, "test": images},
      data_conditional=True,
      evaluation={"network": network},
    )
    plan = run.run.plan
    lines = []
    networks.make_extractor(
      plan.evaluation, plan.data, tmp_path, log=lines.append
    )
    assert "recognises" in lines[0] and "nan" not in lines[0]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  path = tmp_path_factory.mktemp("runs")
  return tiny.train(path, "run", "flow_matching", "train.steps=5")


class TestFiles:
  @pytest.mark.parametrize(
    ("command", "name"),
    [
      ("evaluate", "evaluation.json"),
      ("bench", "bench.json"),
      ("bench", "bench.png"),
      ("report", "report.html"),
    ],
  )
  def test_they_are_checked_before_the_work(self, command, name, workdir):
    (workdir / name).mkdir()
    try:
      result = tiny.run(command, f"--workdir={workdir}")
    finally:
      (workdir / name).rmdir()
    assert result.code == 1 and not result.out
    assert result.err.count("\n") == 1
    assert f"{name} cannot be written (Is a directory)" in result.err

  @pytest.mark.parametrize("command", ["evaluate", "bench", "report"])
  def test_a_full_disk_is_told_before_the_work(
    self, command, workdir, monkeypatch
  ):
    def full(file):
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = tiny.checksums(workdir)
    monkeypatch.setattr(os, "fsync", full)
    result = tiny.run(command, f"--workdir={workdir}")
    assert result.code == 1 and not result.out
    assert "cannot be written (No space left on device)" in result.err
    assert "make --workdir writable" in result.err
    assert tiny.checksums(workdir) == before

  def test_statistics_are_checked_before_the_work(self, tmp_path, monkeypatch):
    (tmp_path / "a.npz").mkdir()
    result = tiny.run(
      *("stats", "--config=digits:mean_flow", f"--out={tmp_path / 'a.npz'}")
    )
    assert result.code == 2 and result.err.count("\n") == 1
    assert "a.npz cannot be written (Is a directory)" in result.err

  def test_an_evaluation_folder_that_is_a_file(self, workdir):
    folder = workdir / "evaluation"
    if folder.exists():
      folder.rmdir()
    folder.write_text("")
    try:
      result = tiny.run("evaluate", f"--workdir={workdir}")
    finally:
      folder.unlink()
    assert result.code == 1 and result.err.count("\n") == 1
    assert "cannot be written" in result.err
