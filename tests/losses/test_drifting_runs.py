"""Drifting in runs: rings of recent data, and features."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_contract

import jaxflow
from jaxflow import losses, paths
from jaxflow.config import default_config, flags
from jaxflow.config.limits import check_limits
from jaxflow.errors import UsageError
from jaxflow.losses import recent
from jaxflow.losses.drifting import no_data
from jaxflow.parallel import sharding

KEY = jax.random.key(2)


def rows_of(ring, label):
  """Return the numbers in a class's ring, sorted."""
  there = min(int(ring["count"][label]), ring["rows"].shape[1])
  return sorted(np.asarray(ring["rows"][label]).ravel()[:there].tolist())


def test_a_ring_holds_the_last_rows_of_its_class():
  ring = recent.empty_ring(3, 4, (1,))
  push = jax.jit(recent.push)
  generator = np.random.default_rng(0)
  pushed = {0: [], 1: [], 2: []}
  for step in range(5):
    # The label 3 is that of rows without one.
    labels = generator.integers(0, 4, 8)
    values = np.arange(8) + 10.0 * step
    for value, label in zip(values, labels.tolist(), strict=True):
      pushed.get(label, []).append(value)
    ring = push(ring, jnp.asarray(values)[:, None], jnp.asarray(labels))
    for label, all_rows in pushed.items():
      assert rows_of(ring, label) == sorted(all_rows[-4:])
      assert int(ring["count"][label]) == len(all_rows)


def test_rows_are_drawn_without_replacement():
  ring = recent.empty_ring(2, 5, ())
  ring = recent.push(ring, jnp.arange(10.0), jnp.arange(10) % 2)
  classes = jnp.asarray([1, 0, 1])
  counts = np.zeros(10)
  for seed in range(200):
    drawn = recent.draw(ring, jax.random.key(seed), classes, 3).reshape(3, 3)
    for label, part in zip(classes.tolist(), drawn.tolist(), strict=True):
      assert len({*part}) == 3 and {int(x) % 2 for x in part} == {label}
    counts += np.bincount(drawn.ravel().astype(int), minlength=10)
  # Each row of class 0 in 3 of 5 draws of 200, of class 1 in twice as many.
  np.testing.assert_allclose(counts[::2], 120, atol=30)
  np.testing.assert_allclose(counts[1::2], 240, atol=45)


def test_rows_repeat_where_there_are_few():
  ring = recent.empty_ring(1, 8, ())
  ring = recent.push(ring, jnp.asarray([4.0, 5.0]), jnp.zeros(2, int))
  drawn = recent.draw(ring, KEY, jnp.zeros(1, int), 5)
  assert sorted(np.bincount(drawn.astype(int))[4:].tolist()) == [2, 3]


CLASSES, GROUP = 3, 4


def batch_of(seed=0):
  generator = np.random.default_rng(seed)
  size = CLASSES * GROUP
  data, noise = generator.standard_normal((2, size, 5))
  label = np.repeat([2, 0, 1], GROUP)
  return {
    "data": jnp.asarray(data),
    "noise": jnp.asarray(noise),
    "cond": jnp.asarray(label),
  }


def drifting(batch, **options):
  given = {"group": GROUP, "negatives": 0} | options
  return losses.drifting_loss(
    lambda xt, t, s, cond: jnp.tanh(xt),
    KEY,
    batch,
    path=paths.Linear(),
    **given,
  )


def memory_of(kept_positives=0, kept_negatives=0):
  return no_data(
    kept_positives=kept_positives,
    kept_negatives=kept_negatives,
    data_shape=(5,),
    num_classes=3,
  )


def test_a_memory_of_the_batch_alone_changes_nothing(x64):
  """A ring as large as a group holds its rows, in whatever order."""
  batch = batch_of()
  expected, _ = drifting(batch)
  memory = memory_of(kept_positives=GROUP)
  loss, _, new = drifting(batch, recent=memory)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  # What it held before is gone with the next batch.
  other = batch_of(seed=1)
  expected, _ = drifting(other)
  loss, _, _ = drifting(other, **new)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_positives_are_of_the_memory(x64):
  """As many as all that it holds: those of both batches."""
  first, second = batch_of(), batch_of(seed=1)
  _, _, new = drifting(first, recent=memory_of(kept_positives=2 * GROUP))
  found, _, _ = drifting(second, positives=2 * GROUP, **new)

  def both(name):
    parts = (x[name].reshape(CLASSES, GROUP, -1) for x in (first, second))
    joined = jnp.concatenate([*parts], axis=1)
    return joined.reshape(CLASSES * 2 * GROUP, *second[name].shape[1:])

  whole = {
    "data": both("data"),
    "noise": second["noise"],
    "cond": both("cond"),
  }
  expected, _ = drifting(whole, group=2 * GROUP, group_samples=GROUP)
  np.testing.assert_allclose(found[::GROUP], expected[:: 2 * GROUP], rtol=1e-6)


def test_negatives_are_of_the_memory(x64):
  """Of rings that hold one value, whatever the batch."""
  batch = batch_of()
  given = {"negatives": 3, "unguided": 0.0}
  memory = memory_of(kept_negatives=CLASSES * GROUP)
  loss, _, new = drifting(batch, recent=memory, **given)
  same = batch | {"data": jnp.ones_like(batch["data"])}
  _, _, ones = drifting(same, recent=memory, **given)
  assert set(new["recent"]) == {"all"}
  assert (ones["recent"]["all"]["rows"] == 1).all()
  negative = jnp.ones((CLASSES * 3, 5))
  expected, _ = drifting(same | {"negative": negative}, **given)
  found, _, _ = drifting(same, recent=memory, **given)
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  assert loss.shape == (CLASSES * GROUP,)


def test_one_and_eight_devices_have_the_same_numbers():
  """Scale and forces are means of the whole batch, wherever its rows are."""
  generator = np.random.default_rng(3)
  label = jnp.asarray(np.repeat(generator.permutation(8), 4))
  data, noise = jnp.asarray(generator.standard_normal((2, 32, 5)), jnp.float32)
  batch = {"data": data, "noise": noise, "cond": label}
  given = {"kept_positives": 8, "kept_negatives": 16}
  memory = no_data(**given, data_shape=(5,), num_classes=8)

  @jax.jit
  def compute(batch, scale):
    def mean(scale):
      loss, *others = losses.drifting_loss(
        lambda xt, *given: jnp.tanh(scale * xt),
        KEY,
        batch,
        path=paths.Linear(),
        group=4,
        negatives=4,
        recent=memory,
      )
      return loss.mean(), (loss, *others)

    return jax.value_and_grad(mean, has_aux=True)(scale)

  mesh = sharding.make_mesh(data=8)
  split = jax.device_put(batch, sharding.row_sharding(mesh))
  one, eight = (compute(x, jnp.float32(1.0)) for x in (batch, split))
  chex.assert_trees_all_close(one, jax.device_get(eight), rtol=1e-5, atol=1e-6)


def test_positives_need_a_memory():
  with pytest.raises(ValueError, match="positives=9 are drawn from a memory"):
    drifting(batch_of(), positives=9)


@pytest.mark.parametrize(
  ("memory", "options", "words"),
  [
    # A ring of 2 would give each of a group's 4 positives twice.
    ({"kept_positives": 2}, {}, r"kept_positives=2: .* fewer than group=4"),
    (
      {"kept_positives": 4},
      {"positives": 5},
      r"kept_positives=4: .* fewer than positives=5",
    ),
    (
      {"kept_negatives": 4},
      {"negatives": 5},
      r"kept_negatives=4: .* fewer than negatives=5",
    ),
    ({}, {"kept_positives": 8}, r"kept_positives=8, .* holds 0 rows"),
    ({}, {"kept_negatives": 8}, r"kept_negatives=8, .* holds 0 rows"),
    (
      {"kept_positives": 4},
      {"kept_positives": 8},
      r"kept_positives=8, .* holds 4 rows",
    ),
  ],
)
def test_a_memory_is_what_options_say_and_enough(memory, options, words):
  recent = memory_of(**memory) or None
  with pytest.raises(ValueError, match=words):
    drifting(batch_of(), recent=recent, **options)


@pytest.mark.parametrize(
  "label", [np.zeros((12, 3), np.float32), np.zeros(12, np.float32)]
)
def test_a_memory_of_classes_needs_classes(label):
  batch = batch_of() | {"cond": jnp.asarray(label)}
  with pytest.raises(ValueError, match=r"labels are float32.* give integers"):
    drifting(batch, recent=memory_of(kept_positives=8))


@pytest.mark.parametrize("order", ["grouped", "shuffled"])
def test_labels_that_are_vectors_are_no_classes(order):
  config = jaxflow.preset("ring:drifting")
  config.data.update(conditional=True, order=order)
  config.model.update(width=8, depth=1, time_features=4)
  config.train.update(steps=1, batch_size=16, log_every=1, steps_per_dispatch=1)
  config.loss.group = 4
  points = np.random.default_rng(0).standard_normal((40, 2))
  rows = {"data": points, "labels": np.repeat(points[:, :1], 3, axis=1)}
  with pytest.raises(UsageError, match=r"data\.conditional=False and") as error:
    jaxflow.train(config, data=rows, log=lambda line: None)
  assert "\n" not in str(error.value)
  config.data.update(conditional=False, order="shuffled")
  jaxflow.train(config, data=rows, log=lambda line: None)


def test_numbers_of_half_precision_are_compared_as_float32():
  """As those numbers in float32 are; the network changes none."""
  half = {
    k: x.astype(jnp.bfloat16) if k != "cond" else x
    for k, x in batch_of().items()
  }
  single = {
    k: x.astype(jnp.float32) if k != "cond" else x for k, x in half.items()
  }
  given = {"path": paths.Linear(), "group": GROUP, "negatives": 0}

  def samples(batch):
    return losses.drifting_loss(lambda xt, t, s, cond: xt, KEY, batch, **given)[
      0
    ]

  found = samples(half)
  assert found.dtype == jnp.float32
  np.testing.assert_array_equal(found, samples(single))


def test_a_run_keeps_its_memory(tmp_path):
  config = jaxflow.preset("ring:drifting")
  config.data.update(conditional=True, order="grouped")
  config.model.update(width=8, depth=1, time_features=4)
  config.train.update(steps=4, batch_size=16, log_every=2)
  config.train.steps_per_dispatch = 2
  config.checkpoint.every = 2
  config.loss.update(
    group=4, positives=8, kept_positives=16, kept_negatives=32, negatives=4
  )
  run = jaxflow.train(config, tmp_path / "run", log=lambda line: None)
  memory = run.state.memory["recent"]
  assert memory["classes"]["rows"].shape == (test_contract.NUM_CLASSES, 16, 2)
  assert int(memory["classes"]["count"].sum()) == 4 * 16
  assert memory["all"]["count"].tolist() == [4 * 16]
  assert run.sample(3, labels=[0, 1, 2]).shape == (3, 2)
  with pytest.raises(ValueError, match="makes a sample in one call; give 1"):
    run.sample(3, nfe=2)


def test_a_run_sees_through_features():
  """Each layer is compared, and the sample itself."""
  config = default_config("drifting", data="digits", model="mlp")
  config.model.update(depth=1, width=8, time_features=4)
  config.train.update(steps=1, batch_size=16, log_every=1)
  config.train.steps_per_dispatch = 1
  config.loss.update(group=4, temperatures=(0.5, 1.0))
  config.features.network = {"name": "conv", "width": 4, "depth": 2}
  seen = {}

  class Log:
    def on_log(self, step, scalars):
      seen.update(scalars)

  images = np.random.default_rng(0).uniform(-1, 1, (40, 8, 8, 1))
  pictures = {"data": images, "labels": np.arange(40) % 4}
  quiet = {"callbacks": [Log()], "log": lambda line: None}
  jaxflow.train(config, data=pictures, **quiet)
  forces = {k for k in seen if k.startswith("force_")}
  ends = "", "_1", "_2"
  assert forces == {f"force_{r}{end}" for r in ("0.5", "1") for end in ends}
  assert all(np.isfinite(seen[k]) and seen[k] > 0 for k in forces)


@pytest.mark.parametrize(
  ("text", "expected"), [("0.02,0.05,0.2", (0.02, 0.05, 0.2)), ("1", (1,))]
)
def test_temperatures_are_flags(text, expected):
  arguments = ["--config=ring:drifting", f"--config.loss.temperatures={text}"]
  assert tuple(flags.parse(arguments).loss.temperatures) == expected


def test_temperatures_are_above_0():
  config = jaxflow.preset("digits:drifting")
  for wrong in ((), (0.2, 0.0)):
    config.loss.temperatures = wrong
    with pytest.raises(UsageError, match=r"loss\.temperatures=.*above 0"):
      check_limits(config)
