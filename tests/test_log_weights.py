"""Learned log-weights: what they learn, and that only the loss sees them."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from jaxflow import models, paths, weights
from jaxflow.errors import UsageError
from jaxflow.methods import METHODS
from jaxflow.parallel import sharding
from jaxflow.runs.drawing import drawer
from jaxflow.runs.restoring import load
from jaxflow.training.state import init_state
from jaxflow.training.step import make_loss_fn, make_train_step

ROW = "continuous_consistency"
ROWS, CHANNELS = 8, 6


def embedding(t):
  """Cosines, then sines, of t at the frequencies 10000^(-2k / CHANNELS)."""
  t = np.asarray(t, np.float64)
  angles = [t * 10000 ** (-2 * k / CHANNELS) for k in range(CHANNELS // 2)]
  return np.stack([np.cos(a) for a in angles] + [np.sin(a) for a in angles], 1)


def test_weight_is_linear_in_the_embedding():
  weight = models.log_weight(channels=CHANNELS)
  params = weight.init(jax.random.key(0))
  t = jnp.linspace(0, 1.57, 5)
  assert not any(leaf.any() for leaf in jax.tree.leaves(params))
  np.testing.assert_array_equal(weight.apply(params, t), np.zeros(5))
  kernel = np.arange(1.0, CHANNELS + 1)
  value = weight.apply({"kernel": jnp.asarray(kernel), "bias": 0.5}, t)
  np.testing.assert_allclose(value, embedding(t) @ kernel + 0.5, rtol=1e-5)


def test_weight_of_pairs_is_linear_in_both_embeddings():
  weight = models.pair_log_weight(channels=CHANNELS)
  params = weight.init(jax.random.key(0))
  t, s = jnp.linspace(0, 1.57, 5), jnp.linspace(1, 0, 5)
  assert not any(leaf.any() for leaf in jax.tree.leaves(params))
  np.testing.assert_array_equal(weight.apply(params, t, s), np.zeros(5))
  start = np.arange(1.0, CHANNELS + 1)
  end = start[::-1] / 3
  given = {"start": jnp.asarray(start), "end": jnp.asarray(end), "bias": 0.5}
  expected = embedding(t) @ start + embedding(s) @ end + 0.5
  np.testing.assert_allclose(weight.apply(given, t, s), expected, rtol=1e-5)


@pytest.mark.parametrize("channels", [0, 1, 7])
def test_channels_come_in_pairs(channels):
  with pytest.raises(UsageError, match=f"channels={channels}: give an even"):
    models.log_weight(channels=channels)


def learned_fns(weight):
  return {
    "log_weight": lambda given: functools.partial(
      weight.apply, given["log_weight"]
    )
  }


def angular_step(log_weight, batch, t):
  """One step of the row by gradient descent of rate 1, at given draws."""
  method = METHODS[ROW]
  network = models.mlp(width=16, depth=1, time_features=8)
  path = paths.Trigonometric(t_max=math.pi / 2, noise_std=0.5)
  options = {"path": path, "sample_times": lambda key, n: t}
  made = {} if log_weight is None else learned_fns(log_weight)
  loss_fn = make_loss_fn(method, network.apply, options, learned_fns=made)
  # Fresh networks are zero.
  params = jax.tree.map(
    lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape),
    network.init(jax.random.key(0)),
  )
  own = {"log_weight": log_weight.init(jax.random.key(0))} if made else {}
  descent = optax.sgd(1.0)
  state = init_state(params, descent, {}, loss_params=own)
  loss, _ = loss_fn(params, state, jax.random.key(0), batch)
  step = jax.jit(make_train_step(loss_fn, descent, {}, seed=0))
  after, metrics = step(state, jax.tree.map(lambda x: x[None, None], batch))
  return loss, after, metrics


def test_first_gradient_is_the_excess_over_one():
  """d/dw (e^w E - w) is E - 1 at w = 0, and w is linear in its parameters."""
  keys = jax.random.split(jax.random.key(2))
  batch = {
    "data": jax.random.normal(keys[0], (ROWS, 2)),
    "noise": jax.random.normal(keys[1], (ROWS, 2)),
  }
  t = jnp.linspace(0.1, 1.5, ROWS)
  error, without, before = angular_step(None, batch, t)
  weight = models.log_weight(channels=CHANNELS)
  loss, after, metrics = angular_step(weight, batch, t)
  np.testing.assert_array_equal(loss, error)
  excess = np.asarray(error, np.float64) - 1
  assert np.abs(excess).max() > 0.1
  moved = after.loss_params["log_weight"]
  np.testing.assert_allclose(moved["bias"], -excess.mean(), rtol=1e-5)
  expected = -(excess[:, None] * embedding(t)).mean(axis=0)
  np.testing.assert_allclose(moved["kernel"], expected, rtol=1e-4, atol=1e-6)
  # e^0 = 1: the network moves as without a weight, and both are one gradient.
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7),
    after.params,
    without.params,
  )
  both = math.hypot(before["gradient_norm"], optax.tree.norm(moved))
  np.testing.assert_allclose(metrics["gradient_norm"], both, rtol=1e-5)
  assert float(metrics["log_weight"]) == 0


def given_errors(model_fn, key, batch, *, log_weight):
  """Return a loss whose errors nothing can change."""
  del model_fn, key
  loss = weights.learned(batch["data"][:, 0], log_weight(batch["t"]))
  return loss, {}


def test_optimum_is_minus_the_logarithm_of_the_error():
  """Two times with errors 1/4 and 4 on average, equally often."""
  method = dataclasses.replace(METHODS[ROW], loss=given_errors, needs=set())
  weight = models.log_weight(channels=CHANNELS)
  loss_fn = make_loss_fn(
    method, lambda *a, **k: None, {}, learned_fns=learned_fns(weight)
  )
  descent = optax.sgd(0.1)
  own = {"log_weight": weight.init(jax.random.key(0))}
  state = init_state({"w": jnp.ones(3)}, descent, {}, loss_params=own)
  one = {
    # Means 1/4 and 4: each time has rows of two errors.
    "data": jnp.array([0.1, 0.4, 2.0, 6.0])[:, None],
    "t": jnp.array([0.1, 0.1, 1.5, 1.5]),
  }
  batch = jax.tree.map(lambda x: jnp.tile(x, (2000, 1) + (1,) * x.ndim), one)
  step = jax.jit(make_train_step(loss_fn, descent, {}, seed=0))
  after, _ = step(state, batch)
  w = weight.apply(after.loss_params["log_weight"], jnp.array([0.1, 1.5]))
  np.testing.assert_allclose(w, [math.log(4), -math.log(4)], atol=1e-3)
  tiny.assert_same_bits(after.params, state.params)


def test_step_that_is_not_finite_leaves_the_weight():
  t = jnp.full((ROWS,), 0.5)
  batch = {"data": jnp.full((ROWS, 2), jnp.nan), "noise": jnp.ones((ROWS, 2))}
  weight = models.log_weight(channels=CHANNELS)
  _, after, _ = angular_step(weight, batch, t)
  assert int(after.skipped) == 1
  assert not any(leaf.any() for leaf in jax.tree.leaves(after.loss_params))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Run `plain`, of flow matching, and `weighted`, of a learned weight."""
  path = tmp_path_factory.mktemp("runs")
  tiny.train(path, "plain", "flow_matching", "train.steps=10")
  tiny.train(path, "weighted", ROW, "train.steps=20", "checkpoint.every=10")
  return path


def test_network_and_averages_hold_no_weight(folder):
  mesh = sharding.make_mesh()
  run, state = load(folder / "weighted", mesh=mesh)
  kernel = state.loss_params["log_weight"]["kernel"]
  assert kernel.shape == (128,) and (kernel != 0).any()
  network = jax.eval_shape(run.model.network.init, jax.random.key(0))
  for params in (state.params, state.ema["sampling"]):
    assert jax.tree.structure(params) == jax.tree.structure(network)
  assert tiny.state_of(folder / "plain").loss_params == {}

  draw = drawer(run, 1, mesh)
  other = jax.tree.map(lambda x: x + 1, state.loss_params)
  samples, same = (
    draw(s, jax.random.key(0), 4, None)
    for s in (state, dataclasses.replace(state, loss_params=other))
  )
  tiny.assert_same_bits(samples, same)


def test_log_shows_the_weight(folder):
  rows = tiny.rows(folder / "weighted")
  assert float(rows[-1]["log_weight"]) != 0
  assert "log_weight" not in tiny.rows(folder / "plain")[0]


def test_resumes_bit_for_bit(folder, tmp_path):
  # The warm-up of the loss is over after one step, of 10 or of 20.
  for steps in (10, 20):
    workdir = tiny.train(tmp_path, "half", ROW, f"train.steps={steps}")
  whole = tiny.state_of(folder / "weighted")
  tiny.assert_same_bits(tiny.state_of(workdir), whole)


@pytest.mark.parametrize(
  ("method", "source", "flags"),
  [
    (ROW, "plain", ["init.workdir={}"]),
    (ROW, "weighted", ["init.workdir={}"]),
    ("flow_matching", "weighted", ["init.workdir={}"]),
    (f"{ROW}_distillation", "plain", ["teacher.workdir={}"]),
  ],
)
def test_starts_from_a_network_with_a_fresh_weight(
  folder, tmp_path, method, source, flags
):
  """After a step of a tiny rate everything is near where it began."""
  flags = [flag.format(folder / source) for flag in flags]
  flags += ["train.steps=1", "optimizer.learning_rate=1e-9"]
  state = tiny.state_of(tiny.train(tmp_path, "new", method, *flags))
  expected = tiny.state_of(folder / source).ema["sampling"]
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=1e-6),
    state.params,
    expected,
  )
  assert bool(state.loss_params) == (method != "flow_matching")
  for leaf in jax.tree.leaves(state.loss_params):
    np.testing.assert_allclose(leaf, 0, atol=1e-6)


def test_weight_of_pairs_is_trained(tmp_path):
  flags = "train.steps=10", "loss.log_weight.name=sinusoidal"
  state = tiny.state_of(tiny.train(tmp_path, "pairs", "lagrangian", *flags))
  params = state.loss_params["log_weight"]
  assert params["start"].shape == params["end"].shape == (128,)
  assert all((leaf != 0).any() for leaf in jax.tree.leaves(params))


def test_can_be_switched_off(tmp_path):
  flags = "train.steps=5", "loss.log_weight.name=none"
  state = tiny.state_of(tiny.train(tmp_path, "off", ROW, *flags))
  assert state.loss_params == {} and int(state.updates) == 5


@pytest.mark.parametrize(
  ("method", "flag", "words"),
  [
    (ROW, "log_weight.name=sinusoidl", "did you mean 'sinusoidal'?"),
    (ROW, "log_weight.channels=7", "loss.log_weight: channels=7: give an"),
    ("flow_matching", "log_weight.name=sinusoidal", "loss.log_weight.name"),
  ],
)
def test_wrong_weights_are_named(tmp_path, method, flag, words):
  command = tiny.train_command(tmp_path, "new", method, f"loss.{flag}")
  result = tiny.run(*command)
  assert result.code == 2 and words in result.err
  assert result.err.count("\n") == 1
  assert not (tmp_path / "new").exists()
