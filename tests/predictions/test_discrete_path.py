"""The path of diffusions with whole steps, against products of their rates."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxflow import paths, predictions


def rates(schedule, n, start, end):
  """The noise rates, step by step."""
  if schedule == "squaredcos_cap_v2":
    f = [math.cos(math.pi / 2 * (k / n + 0.008) / 1.008) ** 2 for k in range(n)]
    f.append(math.cos(math.pi / 2) ** 2)
    return [min(1 - f[k + 1] / f[k], 0.999) for k in range(n)]
  p = 2 if schedule == "scaled_linear" else 1
  low, high = start ** (1 / p), end ** (1 / p)
  return [(low + (high - low) * k / (n - 1)) ** p for k in range(n)]


def products(schedule, n, start, end):
  found, product = [], 1.0
  for rate in rates(schedule, n, start, end):
    product *= 1 - rate
    found.append(product)
  return np.array(found)


@pytest.mark.parametrize(
  "schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"]
)
def test_whole_steps_have_the_products_of_the_rates(schedule):
  path = paths.Discrete(schedule=schedule, beta_start=0.00085, beta_end=0.012)
  squared = products(schedule, 1000, 0.00085, 0.012)
  t = jnp.arange(1000.0)
  assert (path.t_min, path.t_max) == (0, 999)
  alpha, sigma = np.asarray(path.alpha(t)), np.asarray(path.sigma(t))
  assert np.allclose(alpha, np.sqrt(squared), rtol=3e-6, atol=0)
  assert np.allclose(sigma, np.sqrt(1 - squared), rtol=3e-6, atol=0)


def test_between_steps_the_log_ratio_is_a_line():
  path = paths.Discrete(num_steps=10, beta_end=0.5)
  squared = products("linear", 10, 1e-4, 0.5)
  ratio = np.log(squared / (1 - squared))
  middle = 0.75 * ratio[3] + 0.25 * ratio[4]
  found = paths.log_snr(path, jnp.array(3.25))
  assert float(found) == pytest.approx(middle, abs=1e-5)
  back = predictions.time_at(path, jnp.exp(jnp.array(-middle / 2)))
  assert float(back) == pytest.approx(3.25, abs=1e-4)
  # A tenth of a step to either side, by differences.
  c = paths.coefficients(path, jnp.array([3.5]))
  near = [float(path.alpha(jnp.array(3.5 + d))) for d in (-0.1, 0.1)]
  assert float(c.d_alpha[0]) == pytest.approx((near[1] - near[0]) / 0.2, 1e-2)


def test_terminal_ratio_is_nearly_zero_where_asked():
  """Lin et al.: roots are moved so that the last is 0, the first kept."""
  path = paths.Discrete(zero_terminal_snr=True)
  roots = np.sqrt(products("linear", 1000, 1e-4, 0.02))
  moved = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
  alpha = np.asarray(path.alpha(jnp.arange(1000.0)))
  assert np.allclose(alpha[:-1], moved[:-1], rtol=1e-5, atol=1e-7)
  assert 0 < alpha[-1] < alpha[-2] / 15


def test_a_network_starts_a_student_on_another_path():
  """All data are 3: whatever is predicted, the velocity is that of a line."""
  source = paths.Discrete(beta_end=0.012)

  def network(xt, t, s, cond):
    alpha, sigma = (
      paths.expand(f(t), xt) for f in (source.alpha, source.sigma)
    )
    return alpha * (xt - alpha * 3) / sigma - sigma * 3

  student = predictions.from_path(
    network, path=paths.Linear(), source=source, prediction="v"
  )
  noise, t = jnp.array([[0.5], [-1.0]]), jnp.array([0.4, 0.8])
  xt = paths.interpolate(paths.Linear(), 3 * jnp.ones((2, 1)), noise, t)
  assert np.allclose(student(xt, t, t, None), noise - 3, atol=1e-4)


@pytest.mark.parametrize(
  "options",
  [
    {"num_steps": 1},
    {"beta_start": 0.5},
    {"beta_end": 1.0},
    {"schedule": "cosine"},
  ],
)
def test_impossible_options_are_refused(options):
  (name,) = options
  with pytest.raises(ValueError, match=name):
    paths.Discrete(**options)
