"""TwinFlow at the exact solution, and what its rows carry."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from test_oracle import MEAN, STD, batch_of, within

from jaxflow import losses, paths, times

LINEAR = paths.Linear()
EXACT = oracle.Gaussian(LINEAR, MEAN, STD)
SIZE = 16
PAIRS = times.SortedPair(law=within(LINEAR))(jax.random.key(2), SIZE)


def twin_flow(model_fn, batch, times=PAIRS, **options):
  return losses.twin_flow_loss(
    model_fn,
    jax.random.key(1),
    batch,
    path=LINEAR,
    sample_times=lambda key, n: times,
    **options,
  )


def exact_batch(t):
  """Data and noise whose own velocity is that of the flow."""
  t = t.astype(float)
  x = batch_of(SIZE)["noise"]
  v = EXACT.velocity(x, t)
  return {"data": x - t[:, None] * v, "noise": x + (1 - t[:, None]) * v}


def test_base_is_of_second_order(x64):
  """Its residual is O(h) at the exact network and velocity."""
  t, s = jnp.linspace(0.5, 0.9, SIZE), jnp.linspace(0.4, 0.05, SIZE)
  batch = exact_batch(t)

  @functools.partial(jax.jit, static_argnums=(0, 1))
  def base(network, h):
    given = {"step_size": h, "twin": False}
    return twin_flow(network, batch, (t, s), **given)[1]["raw_base"]

  coarse, fine = (base(EXACT.average_velocity, h) for h in (0.01, 0.005))
  assert coarse <= 1e-3
  np.testing.assert_allclose(coarse / fine, 4, rtol=0.1)
  assert base(EXACT.velocity, 0.01) > 0.1


def both_flows(x, t, s, cond, *, off=0.0):
  """The exact network, whose samples are of the data's law."""
  mirrored = EXACT.velocity(x, jnp.abs(t)) + off
  own = EXACT.average_velocity(x, jnp.abs(t), jnp.abs(s))
  return jnp.where((t < 0)[:, None], mirrored, own)


def test_samples_of_the_right_law_are_left_where_they_are(x64):
  batch = exact_batch(PAIRS[0])
  compute = jax.jit(twin_flow, static_argnums=0)
  metrics = compute(both_flows, batch)[1]
  assert metrics["raw_rectify"] < 1e-24
  assert metrics["raw_real"] < 1e-24
  assert metrics["raw_base"] <= 1e-3
  # An error of the mirrored flow is what moves samples.
  wrong = functools.partial(both_flows, off=0.5)
  np.testing.assert_allclose(compute(wrong, batch)[1]["raw_rectify"], 0.25)


def test_own_flow_is_of_the_noise_that_made_the_samples(x64):
  """Of a network of zeros, a sample is its noise: that flow stands still."""
  batch = batch_of(SIZE)
  metrics = twin_flow(lambda x, t, s, cond: 0 * x, batch)[1]
  assert metrics["raw_fake"] == metrics["raw_rectify"] == 0
  assert metrics["raw_real"] > 0.1


def wave(x, t, s, cond):
  return jnp.sin(2 * x + (t - 3 * s)[:, None])


def test_rows_of_the_block_have_twin_terms(x64):
  batch = batch_of(SIZE)
  compute = functools.partial(twin_flow, wave, batch)
  base, all_rows, some = (
    compute(**options)[0]
    for options in ({"twin": False}, {}, {"block": (4, 1)})
  )
  extra = np.asarray(all_rows - base)
  assert extra.min() > 0.01
  expected = np.where(np.arange(SIZE) % 4 == 0, 4 * extra, 0)
  np.testing.assert_allclose(some - base, expected, rtol=1e-10, atol=1e-12)


def test_short_steps_have_the_velocity_for_a_target(x64):
  """Where t - s < h: the gradient is 2 clip(u - v) / d, also at t = s."""
  t = jnp.full(SIZE, 0.5)
  batch = batch_of(SIZE)
  for gap in (0.0, 0.009):

    @jax.jacobian
    def slopes(scale, s=t - gap):
      return losses.twin_flow_loss(
        lambda x, t, s, cond: scale * jnp.ones_like(x),
        jax.random.key(1),
        batch,
        path=LINEAR,
        sample_times=lambda key, n: (t, s),
        twin=False,
      )[0]

    v = batch["noise"] - batch["data"]
    expected = 2 * jnp.clip(1 - v, -1, 1).mean(1)
    np.testing.assert_allclose(slopes(1.0), expected, rtol=1e-10)


def test_guidance_needs_labels():
  with pytest.raises(ValueError, match=r"kappa=0\.5 guides by labels"):
    twin_flow(wave, batch_of(SIZE), kappa=0.5)
