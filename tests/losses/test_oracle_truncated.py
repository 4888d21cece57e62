"""Truncated consistency at the exact solution, and which rows see which f."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from test_oracle import MEAN, STD

from jaxflow import flow_maps, losses, paths, times, weights

PATH = paths.VarianceExploding(t_min=0.01, t_max=5.0)
EXACT = oracle.Gaussian(PATH, MEAN, STD)
SIZE, BLOCK = 16, (4, 1)


def truncated(student, first, batch, pair, **options):
  return losses.truncated_consistency_loss(
    student,
    jax.random.key(1),
    batch,
    path=PATH,
    sample_times=pair if callable(pair) else lambda key, n: pair,
    flow_map=flow_maps.free,
    teacher=first,
    **options,
  )


def on_trajectories(t, s):
  """Data and noise whose points at t and s lie on one trajectory."""
  xt = jax.random.normal(jax.random.key(5), (SIZE, 2))
  xs = EXACT.flow_map(xt, t, s)
  noise = (xt - xs) / (t - s)[:, None]
  return {"data": xt - t[:, None] * noise, "noise": noise}


def random_batch():
  first, second = jax.random.split(jax.random.key(3))
  return {
    "data": jax.random.normal(first, (SIZE, 2)),
    "noise": jax.random.normal(second, (SIZE, 2)),
  }


def test_exact_functions_leave_nothing(x64):
  law = times.Uniform(t_max=4.0)
  pair = times.TransitionPair(law=law, gap=0.3)(jax.random.key(2), SIZE)
  batch = on_trajectories(*pair)
  loss, metrics = truncated(EXACT.flow_map, EXACT.flow_map, batch, pair)
  assert np.abs(loss).max() < 1e-25
  assert metrics["raw"] < 1e-25 and metrics["raw_boundary"] < 1e-25

  def away(x, t, s, cond):
    return EXACT.flow_map(x, t, s) + 1

  # Rows whose s is above agree with a shifted student; the boundary does not.
  _, metrics = truncated(away, EXACT.flow_map, batch, pair)
  np.testing.assert_allclose(metrics["raw_boundary"], 1)
  assert metrics["raw"] < 1


def test_the_transition_itself_is_above():
  """In t, where it has a gradient, and in s, where it is the target."""
  t = jnp.array([1.0, 1.0, 2.0, 2.0])
  s = jnp.array([0.5, 0.5, 1.0, jnp.nextafter(jnp.float32(1), jnp.float32(0))])
  batch = jax.tree.map(lambda x: x[:4], random_batch())

  def student(theta, x, t, s, cond):
    return theta * jnp.ones_like(x)

  def first(x, t, s, cond):
    return jnp.zeros_like(x)

  def rows(theta):
    return truncated(
      functools.partial(student, theta),
      first,
      batch,
      (t, s),
      boundary_weight=1.0,
      weight=weights.uniform,
    )[0]

  # Against f1 the distance is theta^2, against itself 0; a quarter is boundary.
  np.testing.assert_allclose(rows(3.0), [36, 12, 0, 12], rtol=1e-6)
  # 2 theta times those factors: only the first argument has a gradient.
  slope = jax.jacfwd(rows)(3.0)
  np.testing.assert_allclose(slope, [24, 8, 0, 8], rtol=1e-6)


def test_the_first_stage_is_seen_at_the_earlier_time():
  batch = random_batch()
  t, s = times.TransitionPair(gap=0.3)(jax.random.key(0), SIZE)
  seen = []

  def first(x, time, end, cond):
    seen.append((x, time, end))
    return x

  truncated(EXACT.flow_map, first, batch, (t, s))
  ((x, time, end),) = seen
  np.testing.assert_array_equal(time, s)
  np.testing.assert_array_equal(end, jnp.full(SIZE, 0.01, s.dtype))
  expected = batch["data"] + s[:, None] * batch["noise"]
  np.testing.assert_allclose(x, expected, rtol=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_mean_is_that_of_two_means(weight):
  batch = random_batch()
  pair = times.TransitionPair(gap=0.3)(jax.random.key(0), SIZE)
  loss, _ = truncated(
    lambda x, t, s, cond: jnp.sin(x),
    lambda x, t, s, cond: jnp.cos(x),
    batch,
    pair,
    boundary_weight=weight,
  )
  plain, _ = losses.consistency_loss(
    lambda x, t, s, cond: jnp.where(s[:, None] > 0, jnp.sin(x), 0),
    jax.random.key(1),
    batch,
    path=PATH,
    sample_times=lambda key, n: pair,
    flow_map=flow_maps.free,
    target_fn=lambda x, t, s, cond: jnp.where(
      t[:, None] < 1, jnp.cos(x), jnp.sin(x)
    ),
    weight=weights.inverse_gap,
  )
  rows = plain.reshape(-1, 4)
  expected = rows[:, 1:].mean() + weight * rows[:, 0].mean()
  np.testing.assert_allclose(loss.mean(), expected, rtol=1e-6)
