"""Exact networks in float32, on every pair of paths, up to the ends of time."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from jaxflow import flow_maps, paths, predictions, sampling, solvers, times
from jaxflow.predictions import conversions

PATHS = {
  "linear": paths.Linear(),
  "scaled": paths.Linear(noise_std=0.5),
  "trigonometric": paths.Trigonometric(),
  "angle": paths.Trigonometric(t_max=math.pi / 2, noise_std=0.5),
  "variance_preserving": paths.VariancePreserving(),
  "variance_exploding": paths.VarianceExploding(),
}
KINDS = ("data", "noise", "velocity", "v", "score")
# Shares of the time between data and noise.
SHARES = (0.0, 1e-6, 1e-3, 0.01, 0.3, 0.7, 0.99, 0.999, 1 - 1e-6, 1.0)
MEAN, STD = (0.5, -1.0), 0.5


@functools.cache
def gaussian(path):
  return oracle.Gaussian(path, MEAN, STD)


def network(path, kind):
  """The exact network of Gaussian data, of float64 whatever it is given."""
  law = gaussian(path)

  def model_fn(xt, t, s, cond):
    x, at = xt.astype(jnp.float64), t.astype(jnp.float64)
    if kind == "v":
      alpha, sigma = path.alpha(at), path.sigma(at)
      value = oracle.column(alpha) * law.noise(x, at)
      value -= oracle.column(sigma) * law.data(x, at)
    else:
      value = getattr(law, kind)(x, at)
    return value.astype(xt.dtype)

  return model_fn


def times_of(path):
  """The times of `SHARES` in float32, which every type holds."""
  span = path.t_max - path.t_min
  t = jnp.asarray([path.t_min + span * u for u in SHARES], jnp.float32)
  return jnp.clip(t, *jnp.asarray([path.t_min, path.t_max], jnp.float32))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
  ("source", "target"), list(itertools.product(PATHS, PATHS))
)
def test_float32_network_on_another_path(source, target, kind, x64):
  source, target = PATHS[source], PATHS[target]
  t32, law = times_of(target), gaussian(target)
  t64 = jnp.clip(t32.astype(jnp.float64), target.t_min, target.t_max)
  x = law.centre(t64) + oracle.column(law.spread(t64)) * jnp.array(
    [[0.3, -0.8]]
  )
  velocity = conversions.on_path(
    network(source, kind), source=source, target=target, prediction=kind
  )
  single = velocity(x.astype(jnp.float32), t32, t32, None)
  assert single.dtype == jnp.float32
  double = np.array(velocity(x, t64, t64, None))
  exact = np.array(law.velocity(x, t64))
  # The velocity of the variance-preserving path is infinite at t = 0, and from
  # rounded data arbitrary at a millionth of the path from there.
  regular = np.isfinite(exact).all(1)
  if target == PATHS["variance_preserving"] and kind == "data":
    regular[:2] = False
  scale = np.maximum(np.abs(exact).max(1, keepdims=True), 1)
  np.testing.assert_allclose(
    (single / scale)[regular], (double / scale)[regular], atol=2e-4, rtol=0
  )
  # Far from the ends nothing is clipped.
  inner = slice(4, 6)
  np.testing.assert_allclose(single[inner], exact[inner], atol=5e-6, rtol=5e-6)


@pytest.mark.parametrize("path", PATHS)
def test_signal_and_noise_at_the_ends(path, x64):
  path = PATHS[path]
  ends = jnp.asarray([path.t_min, path.t_max], jnp.float32)
  alpha, sigma = path.alpha(ends), path.sigma(ends)
  level = conversions.noise_level(path, ends)
  assert alpha.dtype == sigma.dtype == level.dtype == jnp.float32
  assert (alpha >= 0).all() and (sigma >= 0).all()
  assert level[0] < level[1]
  assert level[1] == jnp.inf or level[1] == pytest.approx(
    float(conversions.noise_level(path, jnp.asarray(path.t_max))), rel=1e-5
  )
  assert not jnp.isnan(paths.log_snr(path, ends)).any()


@pytest.mark.parametrize("kind", ("data", "velocity", "v"))
@pytest.mark.parametrize("path", PATHS)
def test_float32_samples_have_the_deviation_of_the_data(path, kind, x64):
  path = PATHS[path]
  exact = predictions.as_prediction(
    network(path, kind), path, source=kind, target="velocity"
  )
  flow_map = flow_maps.ode_step(exact, solver=solvers.heun)
  noise = jax.random.normal(jax.random.key(0), (2000, 2), jnp.float32)
  noise = (noise - noise.mean(0, keepdims=True)) / noise.std(0, keepdims=True)
  # The velocity of the variance-preserving path is infinite at t = 0.
  end = max(path.t_min, 1e-3 * path.t_max)
  grid = times.uniform_grid(200)
  grid = end + (path.t_max - end) * grid**3
  samples = sampling.sample(
    flow_map, paths.start(path, noise), grid.astype(jnp.float32), None
  )
  t = jnp.asarray([path.t_max, end])
  spread, centre = gaussian(path).spread(t), gaussian(path).centre(t)
  # What a start without data leaves of them on the trajectory.
  start = path.sigma(t[0])
  np.testing.assert_allclose(
    samples.std(0), spread[1] * start / spread[0], rtol=2e-3
  )
  np.testing.assert_allclose(
    samples.mean(0),
    centre[1] - centre[0] * spread[1] / spread[0],
    atol=2e-3,
  )
