"""Straightness, curvature and truncation of exact trajectories."""

import math

import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from scipy import integrate

from jaxflow import paths, solvers
from jaxflow.errors import RunError, UsageError
from jaxflow.metrics import trajectories

STD = 0.5
GAUSSIAN = oracle.Gaussian(paths.Linear(), np.array([0.0, 0.0]), STD)
NOISE = np.random.default_rng(0).standard_normal((200, 2))


def spread(t):
  return np.sqrt((STD * (1 - t)) ** 2 + t**2)


@pytest.fixture(scope="module")
def found():
  times = np.linspace(1, 0, 9)
  return trajectories(GAUSSIAN.velocity, NOISE, times=times, substeps=16)


def test_straightness_is_the_closed_form(found):
  # x(t) = spread(t) noise, so u = (1 - STD) noise and v = spread'(t) noise.

  def slope(t):
    return (t - STD**2 * (1 - t)) / spread(t)

  square, _ = integrate.quad(lambda t: (1 - STD - slope(t)) ** 2, 0, 1)
  expected = square * (NOISE**2).sum(axis=1)
  np.testing.assert_allclose(found.straightness, expected, rtol=2e-3)
  mean = found.estimates()["straightness"]
  # Of the law itself E |noise|^2 = 2.
  assert abs(mean.value - 2 * square) < 3 * mean.error
  assert mean.error == pytest.approx(expected.std() / math.sqrt(200), rel=0.01)


def test_curvature_counts_the_way_back(found):
  # spread falls from 0.5 to STD / sqrt(1 + STD^2) and rises to 1.
  least = STD / math.sqrt(1 + STD**2)
  expected = (STD - least + 1 - least) / (1 - STD) - 1
  np.testing.assert_allclose(found.curvature, expected, rtol=1e-2)
  assert found.estimates()["curvature"].error < 1e-4


def test_truncation_is_that_of_one_step(found):
  now, later = np.linspace(1, 0, 9)[:-1], np.linspace(1, 0, 9)[1:]
  slope = (now - STD**2 * (1 - now)) / spread(now)
  factor = spread(now) + (later - now) * slope - spread(later)
  expected = np.abs(factor)[:, None] * np.linalg.norm(NOISE, axis=1)
  np.testing.assert_allclose(found.truncation, expected, rtol=0.05)


@pytest.mark.parametrize(
  ("solver", "order"), [(solvers.euler, 2), (solvers.heun, 3)]
)
def test_truncation_falls_with_the_order_of_a_step(solver, order, x64):
  missed = [
    trajectories(
      GAUSSIAN.velocity,
      NOISE[:4],
      times=np.linspace(1, 0.5, steps + 1),
      solver=solver,
      substeps=512 // steps,
    ).truncation.mean()
    for steps in (8, 16)
  ]
  assert math.log2(missed[0] / missed[1]) == pytest.approx(order, abs=0.2)


def test_constant_velocities_are_straight():
  def velocity(x, t, s, cond):
    return jnp.ones_like(x) * cond[:, None]

  cond = np.arange(1, 8, dtype="f4")
  found = trajectories(
    velocity, NOISE[:7], times=[1.0, 0.3, 0.0], cond=cond, batch_size=3
  )
  assert found.truncation.shape == (2, 7)
  for numbers in (found.straightness, found.curvature, found.truncation):
    assert np.abs(numbers).max() < 1e-4


def test_bad_requests_are_named():
  def still(x, t, s, cond):
    return 0 * x

  with pytest.raises(UsageError, match="give two or more that decrease"):
    trajectories(still, NOISE, times=[0.0, 1.0])
  with pytest.raises(UsageError, match="substeps=0"):
    trajectories(still, NOISE, times=[1.0, 0.0], substeps=0)
  with pytest.raises(UsageError, match="finite points"):
    trajectories(still, NOISE * np.inf, times=[1.0, 0.0])
  with pytest.raises(RunError, match="2 of 2 trajectories are not finite, or"):
    trajectories(still, NOISE[:2], times=[1.0, 0.0])
