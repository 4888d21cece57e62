"""Noise that is assigned within groups of rows."""

import itertools

import numpy as np
import pytest
import tiny

from jaxflow.data import Batches, FreshNoise, Transported, from_arrays
from jaxflow.data.transport import assignment, check_classes
from jaxflow.errors import UsageError

LABELS = np.array([0, 1, 0, 1, 2, 0])


def drawn(*shape, seed=0):
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def cost(data, noise):
  """Return the sum of squared distances of rows."""
  return ((data.astype(float) - noise) ** 2).sum()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("label", [None, LABELS], ids=["all", "within"])
@pytest.mark.parametrize("scale", [1.0, 80.0])
def test_it_is_the_best_of_all_permutations(seed, label, scale):
  data, noise = drawn(6, 2, 2, seed=seed), drawn(6, 2, 2, seed=100 + seed)
  classes = np.zeros(6) if label is None else label
  allowed = [
    list(order)
    for order in itertools.permutations(range(6))
    if (classes[list(order)] == classes).all()
  ]
  assert len(allowed) == (720 if label is None else 12)
  # Whatever the noise is multiplied by on a path.
  best = min(allowed, key=lambda order: cost(data, scale * noise[order]))
  assert assignment(data, noise, label).tolist() == best


def source(labelled=True, size=100):
  label = np.arange(size) % 3 if labelled else None
  return from_arrays(
    3 * drawn(size, 2, seed=7), label, num_classes=3 if labelled else 0
  )


def transported(rows=8, within_class=True, labelled=True, **options):
  options = {"batch_size": 24, "seed": 3, **options}
  batches = Batches(source(labelled), **options)
  return Transported(batches, rows=rows, within_class=within_class)


def fresh(labelled=True, **options):
  options = {"batch_size": 24, "seed": 3, **options}
  return FreshNoise(Batches(source(labelled), **options))


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("within", [True, False])
def test_every_noise_is_used_once_in_its_group(labelled, within):
  given = {"labelled": labelled, "within_class": within}
  for ours, own in itertools.islice(
    zip(transported(**given), fresh(labelled), strict=True), 5
  ):
    np.testing.assert_array_equal(ours["data"], own["data"])
    moved = 0
    for group in np.split(np.arange(24), 3):
      data, noise, before = (
        x[group] for x in (ours["data"], ours["noise"], own["noise"])
      )
      (order,) = np.nonzero((noise[:, None] == before[None]).all(2))[1:]
      assert sorted(order) == [*range(8)]
      assert cost(data, noise) <= cost(data, before)
      moved += (order != np.arange(8)).sum()
      if labelled and within:
        label = own["cond"][group]
        np.testing.assert_array_equal(label[order], label)
    assert moved


def test_within_a_class_noise_keeps_its_law():
  """Across classes it does not: what lies near a class is its noise."""
  label = np.arange(64) % 2
  data = np.stack([8.0 * label - 4, np.zeros(64)], axis=1)
  both = from_arrays(data, label, num_classes=2)
  means = {}
  for within in (True, False):
    stream = Transported(
      Batches(both, batch_size=64, seed=0), rows=64, within_class=within
    )
    batches = [next(stream) for _ in range(50)]
    noise, cond = (
      np.concatenate([batch[k] for batch in batches]) for k in ("noise", "cond")
    )
    means[within] = noise[cond == 1, 0].mean()
    # Of all rows the law is standard normal, whatever is assigned.
    assert abs(noise.mean()) < 4 / noise.size**0.5
    assert abs(noise.var() - 1) < 4 * (2 / noise.size) ** 0.5
  # 1,600 rows; the upper half of a normal law has the mean sqrt(2 / pi).
  assert abs(means[True]) < 4 / 1600**0.5
  assert abs(means[False] - (2 / np.pi) ** 0.5) < 0.1


def test_a_batch_depends_on_seed_and_number_only():
  stream = transported()
  expected = [next(stream) for _ in range(6)]
  resumed = transported()
  next(resumed)
  resumed.set_state({"position": 4})
  batch = next(resumed)
  for name, rows in expected[4].items():
    np.testing.assert_array_equal(batch[name], rows)
  assert resumed.get_state() == {"position": 5}
  # Batches 2 and 3 at once, in micro-batches of one group each.
  stacked = transported(stack=(2, 3))
  stacked.set_state({"position": 2})
  batch = next(stacked)
  for name, rows in batch.items():
    assert rows.shape[:3] == (2, 3, 8)
    for k in range(2):
      whole = rows[k].reshape(24, *rows.shape[3:])
      np.testing.assert_array_equal(whole, expected[2 + k][name])


@pytest.mark.parametrize(
  "rows", [np.arange(8), np.arange(8, 24), np.r_[0:8, 16:24]]
)
def test_a_process_with_whole_groups_computes_what_one_does(rows):
  whole = transported()
  part = Transported(
    Batches(source(), batch_size=24, seed=3, rows=rows), rows=8
  )
  for _ in range(3):
    expected, found = next(whole), next(part)
    for name in expected:
      np.testing.assert_array_equal(found[name], expected[name][rows])


@pytest.mark.parametrize(
  ("rows", "options"),
  [
    (7, {}),
    (12, {"stack": (1, 3)}),
    (8, {"rows": np.arange(4, 12)}),
    (8, {"rows": np.arange(12)}),
  ],
)
def test_groups_that_do_not_fit(rows, options):
  batches = Batches(source(), batch_size=24, seed=3, **options)
  words = rf"data\.coupling\.rows={rows} does not"
  with pytest.raises(UsageError, match=words):
    Transported(batches, rows=rows)


@pytest.mark.parametrize(
  "cond", [drawn(4, 2), drawn(4), {"words": np.zeros(4, int)}]
)
def test_conditions_that_are_no_classes(cond):
  with pytest.raises(UsageError, match=r"within_class=True: the conditions"):
    check_classes(cond, (4,))


def test_data_that_are_not_finite_keep_their_noise():
  data = drawn(4, 2)
  data[1, 0] = np.nan
  assert assignment(data, drawn(4, 2, seed=1)).tolist() == [0, 1, 2, 3]


def test_a_run_trains_so_and_goes_on(tmp_path):
  flags = "data.coupling.rows=8", "data.conditional=True"
  half = *flags, "train.steps=20", "train.schedule_steps=40"
  tiny.train(tmp_path, "whole", "mean_flow", *flags)
  tiny.train(tmp_path, "halves", "mean_flow", *half)
  tiny.train(tmp_path, "halves", "mean_flow", *flags)
  tiny.train(tmp_path, "plain", "mean_flow", flags[1])
  states = [tiny.state_of(tmp_path / x) for x in ("whole", "halves", "plain")]
  tiny.assert_same_bits(states[0].params, states[1].params)
  assert tiny.apart(states[2].params, states[0].params) > 1e-3


@pytest.mark.parametrize(
  ("method", "flag", "words"),
  [
    ("mean_flow", "data.coupling.rows=5", "does not divide the 16 rows"),
    ("mean_flow", "data.coupling.rows=-1", "data.coupling.rows=-1"),
    ("reflow", "data.coupling.rows=8", "coupling"),
  ],
)
def test_wrong_groups_are_one_line(tmp_path, method, flag, words):
  result = tiny.run(*tiny.train_command(tmp_path, "x", method, flag))
  assert result.code == 2 and words in result.err
  assert result.err.count("\n") == 1
