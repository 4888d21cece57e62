import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from jaxflow import models, paths, times
from jaxflow.config import default_config, resolve
from jaxflow.methods import METHODS
from jaxflow.training import ema, optimizers
from jaxflow.training.state import init_state
from jaxflow.training.step import make_loss_fn, make_train_step

ROWS = 16
SGD = optax.sgd(0.5)


def parabola(params, state, key, batch):
  """Loss (p - data)^2 / 2 of each row; its gradient is p - mean(data)."""
  return (params - batch["data"][:, 0]) ** 2 / 2, {}


def values(*rows):
  """One step a row, one micro-batch each: `[steps, 1, rows, 1]`."""
  return {"data": jnp.asarray(rows, jnp.float32)[:, None, :, None]}


def flow_matching(optimizer, sample_times, emas=None):
  """Return a jitted step of flow matching on points, and its first state."""
  network = models.mlp(width=16, depth=1, time_features=8)
  options = {"path": paths.Linear(), "sample_times": sample_times}
  loss_fn = make_loss_fn(METHODS["flow_matching"], network.apply, options)
  emas = emas or {"slow": ema.Power()}
  step = jax.jit(make_train_step(loss_fn, optimizer, emas, seed=3))
  params = network.init(jax.random.key(0))
  return step, init_state(params, optimizer, emas)


def points(seed, *shape):
  generator = np.random.default_rng(seed)
  data = generator.standard_normal((*shape, 2)).astype(np.float32)
  noise = generator.standard_normal((*shape, 2)).astype(np.float32)
  return {"data": data, "noise": noise}


def test_accumulation_equals_one_batch():
  # Given noise and a constant time leave nothing to the random keys, which
  # differ between the micro-batches.
  step, state = flow_matching(optax.sgd(0.1), times.Constant(t=0.3))
  batch = points(0, 2, 1, ROWS)
  whole, whole_metrics = step(state, batch)
  parts = jax.tree.map(lambda x: x.reshape(2, 4, ROWS // 4, 2), batch)
  summed, summed_metrics = step(state, parts)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
    (whole, whole_metrics),
    (summed, summed_metrics),
  )
  moved = optax.tree.sub(whole.params, state.params)
  assert float(optax.tree.norm(moved)) > 1e-2


def test_steps_of_one_dispatch_equal_single_dispatches():
  step, state = flow_matching(optax.adam(1e-2), times.Uniform())
  batch = points(1, 4, 1, ROWS)
  together, metrics = step(state, batch)
  losses = []
  for k in range(4):
    one = jax.tree.map(lambda x, k=k: x[k : k + 1], batch)
    state, single = step(state, one)
    losses.append(float(single["loss"]))
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7),
    together,
    state,
  )
  assert float(metrics["loss"]) == pytest.approx(np.mean(losses), rel=1e-5)
  assert len(set(losses)) == 4


def test_step_that_is_not_finite_changes_counters_only():
  step, state = flow_matching(optax.adam(1e-2), times.Uniform())
  state, _ = step(state, points(2, 1, 1, ROWS))
  bad = points(3, 2, 1, ROWS)
  bad["data"][:, 0, 5, 1] = np.nan
  after, metrics = step(state, bad)
  for field in ("params", "opt_state", "ema"):
    tiny.assert_same_bits(getattr(after, field), getattr(state, field))
  counters = after.step, after.skipped, after.skipped_in_row
  assert [int(x) for x in counters] == [3, 2, 2]
  assert int(metrics["skipped"]) == 2
  good, metrics = step(after, points(4, 1, 1, ROWS))
  counters = good.step, good.skipped, good.skipped_in_row
  assert [int(x) for x in counters] == [4, 2, 0]
  assert int(metrics["skipped"]) == 0
  # The optimizer counts updates, not steps.
  assert int(good.opt_state[0].count) == 2


def test_finite_loss_with_infinite_gradient_is_skipped():
  def root(params, state, key, batch):
    return jnp.sqrt(jnp.abs(params)) + batch["data"][:, 0], {}

  step = make_train_step(root, SGD, {}, seed=0)
  state, metrics = step(init_state(jnp.zeros(()), SGD, {}), values([1.0, 1.0]))
  assert float(state.params) == 0
  assert int(state.skipped_in_row) == int(metrics["skipped"]) == 1


def test_metrics_are_means_over_the_good_steps():
  step = make_train_step(parabola, SGD, {}, seed=0)
  start = init_state(jnp.zeros(()), SGD, {})
  state, metrics = step(start, values([2.0, 4.0], [np.inf, 0.0], [5.5, 5.5]))
  # p = 0: loss (2 + 8) / 2 = 5, gradient -3, p <- 1.5; then loss 8, p <- 3.5.
  assert float(state.params) == 3.5
  assert float(metrics["loss"]) == 6.5
  assert float(metrics["gradient_norm"]) == 3.5
  assert float(metrics["update_norm"]) == 1.75
  assert int(metrics["skipped"]) == 1


def test_clip_bounds_the_global_norm():
  options = optimizers.OptimizerOptions(learning_rate=1.0, clip_norm=1.0)
  _, adam = optimizers.make_optimizer(options, steps=1)

  def linear(params, state, key, batch):
    # The gradient is (30, 40) / 10 = (3, 4), of norm 5.
    return (3 * params["a"] + 4 * params["b"]) * batch["data"][:, 0], {}

  step = make_train_step(linear, adam, {}, seed=0)
  start = init_state({"a": jnp.zeros(()), "b": jnp.zeros(())}, adam, {})
  state, metrics = step(start, values([1.0, 1.0]))
  assert float(metrics["gradient_norm"]) == pytest.approx(5)
  # The first moment is (1 - b1) times the clipped gradient (0.6, 0.8).
  moment = optax.tree.get(state.opt_state, "mu")
  assert float(moment["a"]) == pytest.approx(0.06)
  assert float(moment["b"]) == pytest.approx(0.08)


def test_averages_follow_their_recursions():
  laws = {"half": ema.Constant(decay=0.5), "wide": ema.Power(width=0.1)}
  step = make_train_step(parabola, SGD, laws, seed=0)
  start = init_state(jnp.asarray(8.0), SGD, laws)
  state, _ = step(start, values([0.0], [np.nan], [4.0], [1.0]))
  # p <- (p + data) / 2 on the good steps: 8 -> 4 -> 4 -> 2.5.
  half = wide = 8.0
  # EDM2, eq. 123: (g + 1)^(1/2) / ((g + 2) (g + 3)^(1/2)) = 0.1.
  gamma = ema.Power(width=0.1).gamma
  width = (gamma + 1) ** 0.5 / ((gamma + 2) * (gamma + 3) ** 0.5)
  assert width == pytest.approx(0.1)
  for k, p in enumerate((4.0, 4.0, 2.5), 1):
    half = 0.5 * half + 0.5 * p
    beta = (1 - 1 / k) ** (gamma + 1)
    wide = beta * wide + (1 - beta) * p
  assert float(state.params) == 2.5
  assert float(state.ema["half"]) == half
  assert float(state.ema["wide"]) == pytest.approx(wide, rel=1e-6)


def test_donated_state_is_reused():
  step, state = flow_matching(optax.adam(1e-2), times.Uniform())
  donating = jax.jit(step, donate_argnums=0)
  # A copy, since jax keeps one buffer for equal constants.
  state = jax.tree.map(jnp.copy, state)
  new, _ = donating(state, points(5, 1, 1, ROWS))
  assert all(x.is_deleted() for x in jax.tree.leaves(state))
  assert int(new.step) == 1


def test_resumed_step_draws_what_an_uninterrupted_one_would():
  step, state = flow_matching(optax.sgd(0.1), times.Uniform())
  batch = {"data": points(6, 1, 1, ROWS)["data"]}  # Noise from the step's key.
  first, metrics = step(state, batch)
  again, metrics_again = step(state, batch)
  tiny.assert_same_bits((first, metrics), (again, metrics_again))
  _, later = step(first, batch)
  assert float(later["raw"]) != float(metrics["raw"])


def test_another_generator_resumes_to_the_bit(tmp_path):
  changes = "train.prng=rbg", "train.steps_per_dispatch=5"
  whole = tiny.train(tmp_path, "whole", "mean_flow", *changes)
  tiny.train(tmp_path, "half", "mean_flow", *changes, "train.steps=20")
  half = tiny.train(tmp_path, "half", "mean_flow", *changes)
  tiny.assert_same_bits(tiny.state_of(half, 40), tiny.state_of(whole, 40))


def test_a_step_draws_from_the_generator_of_the_config():
  def primitives(prng):
    config = default_config("mean_flow", data="ring", model="mlp")
    config.model.update(width=16, depth=1, time_features=8)
    config.train.prng = prng
    config = resolve(config, shape=(2,), num_classes=0, teacher=None)
    run = tiny.run_of(config)
    state = run.init(
      run.model.network.init(jax.random.key(0)), {}, jax.random.key(0)
    )
    batch = {"data": points(7, 1, 1, ROWS)["data"]}
    return str(jax.make_jaxpr(run.train_step())(state, batch))

  text = primitives("rbg")
  assert "impl=rbg" in text and "impl=fry" not in text
  assert "impl=fry" in primitives("threefry2x32")


def test_bfloat16_compute_keeps_float32_parameters():
  config = default_config("mean_flow", data="ring", model="mlp")
  config.model.update(width=16, depth=1, time_features=8, dtype="bfloat16")
  config.data.conditional = False
  config = resolve(config, shape=(2,), num_classes=0, teacher=None)
  run = tiny.run_of(config)
  step = run.train_step()
  key = jax.random.key(0)
  state = run.init(run.model.network.init(key), {}, key)
  batch = points(7, 3, 1, ROWS)
  new, metrics = jax.jit(step)(state, batch)
  assert "bf16[" in str(jax.make_jaxpr(step)(state, batch))
  assert int(new.skipped) == 0
  assert np.isfinite(float(metrics["loss"]))
  floats = [
    x for x in jax.tree.leaves(new) if jnp.issubdtype(x.dtype, jnp.floating)
  ]
  assert {x.dtype for x in floats} == {jnp.dtype("float32")}
  changed = jax.tree.map(lambda a, b: bool((a != b).any()), new, state)
  assert all(jax.tree.leaves(changed.params))


@pytest.mark.parametrize(
  ("name", "step", "rate"),
  [
    ("constant", 0, 0.0),
    ("constant", 5, 0.5),
    ("constant", 90, 1.0),
    ("linear", 10, 1.0),
    ("linear", 55, 0.5),
    ("linear", 100, 0.0),
    ("cosine", 55, 0.5),
    ("cosine", 32.5, (1 + np.cos(np.pi / 4)) / 2),
  ],
)
def test_schedules(name, step, rate):
  options = optimizers.OptimizerOptions(
    learning_rate=1.0, schedule=name, warmup_steps=10
  )
  schedule = optimizers.make_schedule(options, steps=100)
  assert float(schedule(step)) == pytest.approx(rate, abs=1e-6)
