"""alpha-Flow at the exact solution, and the methods that it contains."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_oracle import BATCH, batch_of, gaussian, gradients, within, z_score

from jaxflow import losses, paths, times

LINEAR = paths.Linear()
EXACT = gaussian(LINEAR)


@functools.partial(jax.jit, static_argnums=0, static_argnames=("weighting",))
def loss(model_fn, alpha, **options):

  return losses.alpha_flow_loss(
    model_fn,
    jax.random.key(1),
    batch_of(256),
    path=LINEAR,
    sample_times=times.SortedPair(law=within(LINEAR, 0, 1)),
    ratio=lambda progress, t, s: alpha,
    teacher=EXACT.velocity,
    norm_power=0.0,
    block=(2, 1),
    **options,
  )


def error_at(model_fn, alpha):
  return loss(model_fn, jnp.asarray(alpha))[1]["raw_interval"]


def test_residual_vanishes_in_the_limit(x64):
  assert error_at(EXACT.average_velocity, 0.0) <= 1e-18
  assert error_at(EXACT.velocity, 0.0) > 1e-3


def test_residual_is_of_fourth_order(x64):
  # E is the square of the local error of an Euler step, alpha^2.
  coarse, fine = (error_at(EXACT.average_velocity, a) for a in (0.02, 0.01))
  assert abs(np.log2(coarse / fine) - 4) < 0.1
  # A network that is off is seen through the factor alpha.
  assert error_at(EXACT.velocity, 0.01) > 100 * fine


def test_gradient_vanishes_in_the_limit():
  def compute(model_fn, alpha=0.0):
    return losses.alpha_flow_loss(
      model_fn,
      jax.random.key(2),
      batch_of(BATCH),
      path=LINEAR,
      sample_times=times.SortedPair(law=within(LINEAR)),
      ratio=times.ConstantRatio(alpha=alpha),
      block=(2, 1),
      norm_power=0.0,
    )

  exact = gradients(compute, EXACT.average_velocity)
  assert np.abs(z_score(exact)).max() < 4
  biased = gradients(compute, EXACT.velocity)
  assert np.abs(z_score(biased)).max() > 8
  # alpha = 1 is flow matching at all s: its minimum is the velocity.
  flow = gradients(functools.partial(compute, alpha=1.0), EXACT.velocity)
  assert np.abs(z_score(flow)).max() < 4


def network(xt, t, s, cond):
  return jnp.sin(xt) * paths.expand(t - 0.5 * s, xt)


OPTIONS = {
  "path": LINEAR,
  "sample_times": times.SortedPair(law=times.Uniform()),
  "block": (4, 1),
  "norm_eps": 1e-3,
}


def test_it_is_mean_flow_at_0(x64):
  key, batch = jax.random.key(0), batch_of(16)
  found, _ = losses.alpha_flow_loss(
    network, key, batch, ratio=times.ConstantRatio(alpha=0.0), **OPTIONS
  )
  expected, _ = losses.mean_flow_loss(
    network, key, batch, reduction="mean", **OPTIONS
  )
  np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_it_is_flow_matching_at_1(x64):
  key, batch = jax.random.key(0), batch_of(16)
  pair = OPTIONS["sample_times"]
  found, _ = losses.alpha_flow_loss(
    network,
    key,
    batch,
    ratio=times.ConstantRatio(alpha=1.0),
    **OPTIONS | {"norm_power": 0.0},
  )
  # The same draws, and every pair of times for a network of one more input.
  t, s = pair(jax.random.split(key, 3)[0], 16)
  s = jnp.where(jnp.arange(16) % 4 == 0, s, t)
  expected, _ = losses.flow_matching_loss(
    lambda xt, t, _, cond: network(xt, t, s, cond),
    key,
    batch,
    path=LINEAR,
    sample_times=lambda key, n: t,
  )
  np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_weightings_are_the_same_up_to_factors(power, x64):
  """With eps alpha^2 and alpha^(2 p - 1) / 2, one is the other."""
  alpha, key, batch = 0.25, jax.random.key(0), batch_of(8)
  ratio = times.ConstantRatio(alpha=alpha)
  given = OPTIONS | {"block": (1, 1), "norm_power": power, "ratio": ratio}
  solution, _ = losses.alpha_flow_loss(
    network, key, batch, weighting="solution", **given
  )
  given["norm_eps"] *= alpha**2
  plain, _ = losses.alpha_flow_loss(network, key, batch, **given)
  np.testing.assert_allclose(
    solution, plain / alpha * alpha ** (2 * power - 1) / 2, rtol=1e-12
  )


def test_a_schedule_needs_progress():
  with pytest.raises(ValueError, match="SigmoidRatio changes during training"):
    losses.alpha_flow_loss(
      network,
      jax.random.key(0),
      batch_of(4),
      ratio=times.SigmoidRatio(),
      **OPTIONS,
    )


def test_exact_pairs_of_a_teacher(x64):
  """Data = m + c noise: average velocity and velocity are one, along lines."""
  mean, c = jnp.array([[0.3, -0.8]]), 0.5
  noise = jax.random.normal(jax.random.key(0), (32, 2))

  def exact(x, t, s, cond, c=c):
    t = t[:, None]
    return (1 - c) * (x - (1 - t) * mean) / ((1 - t) * c + t) - mean

  def error(model_fn):
    return losses.mean_flow_loss(
      model_fn,
      jax.random.key(1),
      {"data": mean + c * noise, "noise": noise},
      path=LINEAR,
      sample_times=times.RectifiedPair(
        gap_law=times.LogitNormal(mean=-0.8, std=1.0)
      ),
      norm_power=0.0,
      reduction="mean",
      block=(2, 1),
    )[0].max()

  assert error(exact) <= 1e-20
  assert error(functools.partial(exact, c=0.6)) > 1e-3


def test_dropped_rows_may_follow_the_teacher():
  """A teacher says its label: 7 without one."""
  seen = []

  def teacher(xt, t, s, cond):
    seen.append(cond)
    return jnp.ones_like(xt) * cond[:, None]

  def raw(dropped_rows):
    return losses.mean_flow_loss(
      lambda xt, t, s, cond: 0 * xt,
      jax.random.key(0),
      {
        "data": jnp.zeros((4, 1)),
        "noise": jnp.full((4, 1), 2.0),
        "cond": jnp.array([1, 7, 3, 7]),
      },
      teacher=teacher,
      null_cond=7,
      dropped_rows=dropped_rows,
      **OPTIONS | {"norm_power": 0.0},
    )[0].tolist()

  # noise - data is 2; squares of it, or of the teacher's.
  assert raw("sample") == [1.0, 4.0, 9.0, 4.0]
  assert raw("teacher") == [1.0, 49.0, 9.0, 49.0]
  assert seen


def test_squared_error(x64):
  key, batch = jax.random.key(0), batch_of(16)
  given = OPTIONS | {"norm_power": 1.0}
  plain, _ = losses.mean_flow_loss(
    network, key, batch, **given | {"norm_power": 0.0}
  )
  found, _ = losses.mean_flow_loss(network, key, batch, squared=True, **given)
  np.testing.assert_allclose(
    found, plain**2 / (plain**2 + given["norm_eps"]), rtol=1e-12
  )
