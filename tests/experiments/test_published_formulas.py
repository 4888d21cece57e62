"""Published forms of a loss are limits of each other."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.training_cost import published

EPS = 0.01
KEY = jax.random.key(3)


def network(xt, t, s, cond):
  """A smooth function of everything it is told."""
  t, s, cond = (x[:, None].astype(xt.dtype) for x in (t, s, cond))
  return jnp.sin(xt * (1 + t)) + jnp.cos(2 * s + t) + 0.1 * cond


def batch():
  return {
    "data": jax.random.normal(jax.random.key(0), (32, 3), jnp.float64),
    "cond": jnp.arange(32) % 5,
  }


def errors(loss, **options):
  """Return the squared errors, of which the loss is E / (E + eps)."""
  value, _ = loss(network, KEY, batch(), num_classes=5, **options)
  return EPS * value / (1 - value)


def test_a_central_difference_is_the_derivative_to_second_order(x64):
  exact = errors(published.published_mean_flow)
  ours = errors(published.published_central_differences)
  # The third derivatives are a few: h^2 = 2.5e-5 leaves 1e-3 of the error.
  np.testing.assert_allclose(ours, exact, rtol=2e-3)
  assert np.abs(ours - exact).max() > 0


def test_a_short_secant_is_the_derivative_to_first_order(x64):
  exact = errors(published.published_mean_flow)
  interval = jnp.arange(32) >= 24
  for alpha in (1e-3, 1e-4):
    ours = errors(published.published_secant, alpha=alpha)
    # The secant's error is alpha times the derivative's, but for alpha times a
    # second derivative: of sines and cosines at slopes of 2 that is a few.
    scaled = jnp.where(interval, ours / alpha**2, ours)
    np.testing.assert_allclose(scaled, exact, rtol=4 * alpha, atol=4 * alpha)
