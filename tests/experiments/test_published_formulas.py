"""Published forms of a loss are limits of each other."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.training_cost import published
from jaxflow import losses

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


def test_improved_mean_flow_is_ours_where_no_label_is_dropped(x64):
  """Ours takes flow rows and interval rows in turn, published has halves."""

  def heads(xt, t, s, cond):
    given = [cond[k] for k in ("label", "omega", "t_start", "t_end")]
    u, *others = (x[:, None].astype(xt.dtype) for x in (t, *given))
    wave = sum(jnp.sin((i + 1) * x / 5) for i, x in enumerate(others))
    base = network(xt, t, s, cond["label"])
    return base + u * wave, jnp.cos(xt) + wave

  rows, given = batch(), {"num_classes": 5, "dropout": 0.0}
  expected, _ = published.published_improved_mean_flow(
    heads, KEY, rows, **given
  )
  drawn, scales, label = published.draw_guided(KEY, rows, **given)
  order = np.arange(32).reshape(2, 16)[::-1].T.ravel()
  drawn, scales, label, data = jax.tree.map(
    lambda x: x[order], (drawn, scales, label, rows["data"])
  )
  ours, _ = losses.improved_mean_flow_loss(
    heads,
    KEY,
    {
      "data": data,
      "noise": drawn.v + data,
      "cond": {"label": label, **scales._asdict()},
    },
    path=published.LINEAR,
    sample_times=lambda key, n: (drawn.t, drawn.s),
    block=(2, 1),
    null_cond=5,
  )
  np.testing.assert_allclose(ours, expected[order], rtol=1e-9)
