"""Finite differences along the flow approach the exact derivative."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxflow import losses, paths, times
from jaxflow.losses.derivatives import along_flow

LINEAR = paths.Linear()
X = jnp.array([[0.3, -1.2], [1.1, 0.4], [0.2, 0.9]])
V = jnp.array([[1.5, 0.5], [-0.7, 1.0], [0.1, -2.0]])
T = jnp.array([0.3, 0.5, 0.8])


def smooth(x, t):
  return jnp.sin(2 * x) * jnp.exp(t)[:, None] + x * (t**3)[:, None]


def by_hand():
  x, v, t = (np.asarray(a, np.float64) for a in (X, V, T[:, None]))
  slope = 2 * np.cos(2 * x) * np.exp(t) + t**3
  return slope * v + np.sin(2 * x) * np.exp(t) + 3 * x * t**2


def difference(**options):
  """Return the derivative in float64."""
  x, t, v = (a.astype(jnp.float64) for a in (X, T, V))
  return along_flow(smooth, x, t, v, path=LINEAR, **options)[1]


def test_jvp_is_exact(x64):
  np.testing.assert_allclose(difference(), by_hand(), rtol=1e-6)


@pytest.mark.parametrize(
  ("options", "order"),
  [
    ({"derivative": "central"}, 2),
    ({"derivative": "relative"}, 2),
    # Both halves fit: central.
    ({"derivative": "one_sided"}, 2),
    # None down, since s is at t.
    ({"derivative": "one_sided", "s": T}, 1),
  ],
  ids=["central", "relative", "one_sided", "one half"],
)
def test_order(options, order, x64):
  exact = difference()
  coarse, fine = (
    jnp.linalg.norm(difference(**options, step=h) - exact)
    for h in (0.01, 0.005)
  )
  assert abs(np.log2(coarse / fine) - order) < 0.05


def test_halves_that_do_not_fit(x64):
  """Up at t_min, down at t_max, and nothing between s and t_max."""

  def line(x, t):
    seen.append(t)
    return x * t[:, None]

  seen = []
  t = jnp.array([0.0, 1.0, 1.0, 0.5])
  s = jnp.array([0.0, 0.0, 0.95, 0.0])
  x, v = jnp.ones((4, 1)), jnp.full((4, 1), 2.0)
  u, du = along_flow(
    line, x, t, v, path=LINEAR, s=s, derivative="one_sided", step=0.125
  )
  np.testing.assert_allclose(u[:, 0], t)
  # (x + h v)(t + h) - x t over h is x + v t + h v; below, - h v; central, 0.
  expected = [1 + 0.25, 1 + 2 - 0.25, 0.0, 1 + 1]
  np.testing.assert_allclose(du[:, 0], expected, rtol=1e-12)
  for time in seen:
    assert ((time >= LINEAR.t_min) & (time <= LINEAR.t_max)).all()


@pytest.mark.parametrize("derivative", ["jvp", "central", "relative"])
def test_rate_and_auxiliary(derivative, x64):
  x, t, v = (a.astype(jnp.float64) for a in (X, T, V))
  options = {"path": LINEAR, "derivative": derivative, "step": 1e-4}
  rate = jnp.array([1.0, 0.5, -2.0])
  u, du, double = along_flow(
    lambda x, t: (smooth(x, t), 2 * x),
    *(x, t, v),
    rate=rate,
    has_aux=True,
    **options,
  )
  np.testing.assert_allclose(u, smooth(x, t))
  np.testing.assert_allclose(double, 2 * x)
  np.testing.assert_allclose(du, rate[:, None] * by_hand(), rtol=1e-5)


def test_differences_are_float32_for_small_types():
  """Points in bfloat16 would hide a step of 0.001."""
  small = jnp.bfloat16
  seen = []

  def network(x, t):
    seen.append((x.dtype, t.dtype))
    return x * t[:, None].astype(x.dtype)

  x, v = jnp.ones((3, 2), small), jnp.ones((3, 2), small)
  _, du = along_flow(
    network, x, T, v, path=LINEAR, derivative="central", step=0.001
  )
  assert seen[1:] == [(jnp.float32, jnp.float32)] * 2
  # x + v t, at x = v = 1; the result has the type of u.
  np.testing.assert_allclose(du[:, 0].astype(float), 1 + T, rtol=0.01)


def test_no_gradient_passes_a_difference():
  def total(scale):
    u, du = along_flow(
      lambda x, t: scale * smooth(x, t),
      *(X, T, V),
      path=LINEAR,
      derivative="central",
    )
    return du.sum() + 0 * u.sum()

  assert jax.grad(total)(2.0) == 0


def test_unknown_name():
  with pytest.raises(ValueError, match="derivative='up': use jvp, central"):
    along_flow(smooth, X, T, V, path=LINEAR, derivative="up")


def kernel_without_jvp(x):
  @jax.custom_vjp
  def kernel(x):
    return jnp.sin(x)

  kernel.defvjp(lambda x: (kernel(x), x), lambda x, g: (g * jnp.cos(x),))
  return kernel(x)


def test_a_kernel_without_jvp_trains():
  """As fused attention is: it has a reverse derivative only."""

  def loss(scale, derivative):
    value, _ = losses.mean_flow_loss(
      lambda xt, t, s, cond: scale * kernel_without_jvp(xt),
      jax.random.key(0),
      {"data": X[:2], "noise": V[:2]},
      path=LINEAR,
      sample_times=times.SortedPair(law=times.Uniform()),
      block=(2, 1),
      derivative=derivative,
    )
    return value.sum()

  slope = jax.grad(functools.partial(loss, derivative="central"))(1.0)
  assert jnp.isfinite(slope) and slope != 0
  with pytest.raises(TypeError, match="custom_vjp"):
    jax.grad(functools.partial(loss, derivative="jvp"))(1.0)
