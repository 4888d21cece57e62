"""Continuous consistency at the exact solution."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from test_oracle import BATCH, MEAN, STD, batch_of, gradients, z_score

from jaxflow import flow_maps, losses, paths, times, weights

ANGULAR = paths.Trigonometric(t_max=math.pi / 2, noise_std=0.5)
EXACT = oracle.Gaussian(ANGULAR, MEAN, STD)
INSIDE = times.Uniform(t_min=0.1, t_max=1.45)


def jump(x, t, s, cond):
  """Return the network whose consistency function is the exact flow map."""
  end = EXACT.flow_map(x, t, jnp.zeros_like(t))
  return (jnp.cos(t)[:, None] * x - end) / jnp.sin(t)[:, None]


def consistency(model_fn, size, key=1, **options):
  return losses.continuous_consistency_loss(
    model_fn,
    jax.random.key(key),
    batch_of(size),
    path=ANGULAR,
    sample_times=INSIDE,
    **options,
  )


def test_exact_network_is_the_exact_flow_map(x64):
  t = jnp.linspace(0.1, math.pi / 2, 8)
  x, end = batch_of(8)["noise"], jnp.zeros(8)
  np.testing.assert_allclose(
    flow_maps.trigonometric(jump)(x, t, end, None),
    EXACT.flow_map(x, t, end),
    rtol=1e-10,
    atol=1e-12,
  )


def test_tangent_vanishes_with_the_exact_teacher(x64):
  compute = jax.jit(
    functools.partial(consistency, size=64, teacher=EXACT.velocity),
    static_argnums=0,
  )
  loss, metrics = compute(jump)
  assert metrics["tangent_norm"] < 1e-10
  assert loss.max() < 1e-15
  # The velocity is no consistency function.
  assert compute(EXACT.velocity)[1]["tangent_norm"] > 1e-2


def test_gradient_of_training_vanishes():
  def loss(model_fn):
    return consistency(model_fn, BATCH, key=2)

  assert np.abs(z_score(gradients(loss, jump))).max() < 4
  assert np.abs(z_score(gradients(loss, EXACT.velocity))).max() > 8


def test_without_the_second_bracket_early_in_training(x64):
  # At r = 0 the tangent is -cos^2 t (u - v): the velocity has none.
  _, metrics = consistency(
    EXACT.velocity, 64, teacher=EXACT.velocity, progress=jnp.array(0.0)
  )
  # The path and the network round their sines and cosines apart.
  assert metrics["tangent_norm"] < 1e-15


def test_rms_normalization(x64):
  # ||g|| = sqrt(d) rms(g): the constant counts sqrt(d) times as much.
  l2, _ = consistency(EXACT.velocity, 8, c=0.2 * math.sqrt(2))
  rms, _ = consistency(EXACT.velocity, 8, c=0.2, normalization="rms")
  np.testing.assert_allclose(rms, 2 * l2, rtol=1e-12)


def test_pretraining_is_flow_matching(x64):
  batch = batch_of(8)
  t = jnp.linspace(0.2, 1.3, 8)
  cos, sin = jnp.cos(t)[:, None], jnp.sin(t)[:, None]
  data, noise = batch["data"], batch["noise"]
  xt = cos * data + 0.5 * sin * noise
  expected = ((jnp.tanh(xt) - (0.5 * cos * noise - sin * data)) ** 2).mean(1)
  loss, _ = losses.flow_matching_loss(
    lambda xt, t, s, cond: jnp.tanh(xt),
    jax.random.key(0),
    batch,
    path=ANGULAR,
    sample_times=lambda key, n: t,
  )
  np.testing.assert_allclose(loss, expected, rtol=1e-12)


def test_learned_weight_makes_errors_alike(x64):
  # At its minimum w = -ln error, where the loss is 1 + ln error.
  error = jnp.array([0.5, 4.0])
  w = -jnp.log(error)
  slope = jax.grad(lambda w: weights.learned(error, w).sum())(w)
  np.testing.assert_allclose(slope, 0, atol=1e-12)
  np.testing.assert_allclose(weights.learned(error, w), 1 + jnp.log(error))


def test_time_must_be_an_angle():
  with pytest.raises(ValueError, match="the time must be an angle"):
    losses.continuous_consistency_loss(
      jump,
      jax.random.key(0),
      batch_of(2),
      path=paths.Trigonometric(),
      sample_times=INSIDE,
    )


def test_unknown_normalization():
  with pytest.raises(ValueError, match="'l1': use l2 or rms"):
    consistency(jump, 2, normalization="l1")
