"""What experiments measure, where the answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from experiments.runner.exact import exact_velocity
from experiments.runner.fields import acceleration, follow, refined, steepness
from experiments.runner.spectra import fine_power, radial_power
from jaxflow import data, paths

# v = A x: the Jacobian is A, of largest singular value 2, and x'' = A A x.
A = np.array([[0.0, -1.0], [2.0, 0.0]])


def linear(x, t, s, cond):
  """Return the field A x."""
  return x @ jnp.asarray(A.T, x.dtype)


@pytest.mark.parametrize(
  "path",
  [paths.Linear(), paths.VarianceExploding(), paths.VariancePreserving()],
)
def test_the_exact_velocity_is_the_oracles(path, x64):
  mixture = data.known_mixture("ring")
  known = oracle.Mixture(path, mixture.weights, mixture.means, mixture.stds)
  draw = np.random.default_rng(0)
  t = jnp.linspace(0.1, path.t_max * 0.9, 32)
  x = jnp.asarray(draw.standard_normal((32, 2))) * (1 + path.sigma(t))[:, None]
  found = exact_velocity(mixture, path)(x, t, t, None)
  np.testing.assert_allclose(found, known.velocity(x, t), rtol=1e-9, atol=1e-9)


def test_fields_are_followed_and_measured():
  x = jnp.array([[[1.0, 0.0], [0.0, 3.0]]])
  times = refined(jnp.array([1.0, 0.5, 0.0]), 50)
  assert times.shape == (2, 51)
  passed = follow(_field(), x, times)
  # The solution turns in an ellipse: x'' = -2 x, with the angle sqrt(2) t.
  angle = np.sqrt(2) * 1.0
  back = np.cos(angle) * np.eye(2) - np.sin(angle) / np.sqrt(2) * A
  np.testing.assert_allclose(passed[0, -1], x[0] @ back.T, atol=1e-3)
  steep = steepness(_field(), passed, jnp.array([1.0, 0.5, 0.0]))
  np.testing.assert_allclose(steep, 2.0, rtol=1e-5)
  second = acceleration(_field(), x[:, None], jnp.array([1.0]))
  np.testing.assert_allclose(second[0, 0], [2.0, 6.0], rtol=1e-5)


def _field():
  """One seed of the field."""
  return jax.tree_util.Partial(
    lambda scale, x, t, s, cond: scale * linear(x, t, s, cond), jnp.ones(1)
  )


def test_fine_power_is_that_of_high_frequencies():
  rows, columns = np.indices((8, 8))
  board = np.where((rows + columns) % 2, 1.0, -1.0)[None, :, :, None]
  # All power, 64 = (64^2) / 64, is in the one component at (1/2, 1/2).
  radius = np.hypot(*np.meshgrid(np.fft.fftfreq(8), np.fft.fftfreq(8)))
  assert fine_power(board) == pytest.approx(64 / (radius >= 0.25).sum())
  assert fine_power(np.ones((1, 8, 8, 1))) == pytest.approx(0, abs=1e-12)
  stripes = np.where(columns % 2, 1.0, -1.0)[None, :, :, None]
  frequencies, power = radial_power(stripes)
  np.testing.assert_allclose(frequencies, [0, 0.125, 0.25, 0.375, 0.5])
  assert power[:4] == pytest.approx(0, abs=1e-12) and power[4] > 0
