"""Orders of the samplers, on a Gaussian and on a network solved by diffrax."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import references

from jaxflow import flow_maps, paths, predictions, sampling, solvers

KEY = jax.random.key(0)
ORDERS = {
  "ddim": (sampling.DDIM(), 1),
  "dpm_1": (sampling.DPMSolver(order=1), 1),
  "dpm_2": (sampling.DPMSolver(order=2, lower_order_final=False), 2),
  "dpm_2_final": (sampling.DPMSolver(order=2), 2),
}
STEPS = (160, 320)


def orders(errors):
  """Measured orders when the step is halved."""
  return np.log2(errors[:-1]) - np.log2(errors[1:])


def errors_of(sampler, function, x, path, ends, truth):
  """Errors at the end of uniform grids of 160 and 320 steps."""
  run = jax.jit(
    lambda x, times: sampler(function, x, times, path=path, key=KEY)
  )
  return [
    np.linalg.norm(run(x, jnp.linspace(*ends, n + 1)) - truth) for n in STEPS
  ]


def gaussian(path, ends):
  exact = oracle.Gaussian(path, (0.3, -0.8), 0.6)
  x = jax.random.normal(KEY, (16, 2)) * path.sigma(jnp.array(ends[0]))
  start, end = (jnp.full(16, t) for t in ends)
  return exact, x, exact.flow_map(x, start, end)


@pytest.mark.parametrize("path", [paths.Linear(), paths.VariancePreserving()])
@pytest.mark.parametrize("name", ORDERS)
def test_order_on_a_gaussian(name, path, x64):
  sampler, order = ORDERS[name]
  ends = (0.8, 0.2)
  exact, x, truth = gaussian(path, ends)
  errors = errors_of(sampler, exact.data, x, path, ends, truth)
  np.testing.assert_allclose(orders(errors), order, atol=0.15)


def test_order_of_edm_heun(x64):
  path, ends = paths.VarianceExploding(), (2.0, 0.2)
  exact, x, truth = gaussian(path, ends)
  errors = errors_of(sampling.EDMHeun(), exact.data, x, path, ends, truth)
  np.testing.assert_allclose(orders(errors), 2, atol=0.15)


@pytest.mark.parametrize(("published", "order"), [(False, 3), (True, 2)])
def test_third_order_needs_the_factor_two(published, order, x64):
  # Orders 1 and 2 of the first two steps would hide it: these are exact here.
  path, ends = paths.VariancePreserving(), (0.8, 0.2)
  exact, x, truth = gaussian(path, ends)
  solver = sampling.DPMSolver(
    order=3, lower_order_final=False, published=published
  )

  def solve_on(times):
    of_x, of_data = solver.coefficients(path, times)
    at = [jnp.full(16, time) for time in times[:3]]
    points = [exact.flow_map(x, at[0], time) for time in at]
    known = [exact.data(points[k], at[k]) for k in (1, 0)]

    def step(carry, given):
      y, older, oldest = carry
      t, scale, weights = given
      new = exact.data(y, jnp.full(16, t))
      y = scale * y + jnp.einsum(
        "k,k...", weights, jnp.stack([new, older, oldest])
      )
      return (y, new, older), None

    steps = times[2:-1], of_x[2:], of_data[2:]
    return jax.lax.scan(step, (points[2], *known), steps)[0][0]

  errors = [
    np.linalg.norm(jax.jit(solve_on)(jnp.linspace(*ends, n + 1)) - truth)
    for n in STEPS
  ]
  np.testing.assert_allclose(orders(errors), order, atol=0.25)


def solve(velocity, x, ends):
  """Return the end of the trajectory by an adaptive method of order 8."""
  rows = len(x)

  def slope(t, x, _):
    time = jnp.full(rows, t)
    return velocity(x, time, time, None)

  solution = diffrax.diffeqsolve(
    diffrax.ODETerm(slope),
    diffrax.Dopri8(),
    *ends,
    dt0=None,
    y0=x,
    stepsize_controller=diffrax.PIDController(rtol=1e-11, atol=1e-11),
    max_steps=10_000,
  )
  return solution.ys[0]


@functools.cache
def network_case(kind):
  """Path, denoiser, velocity, start, ends and true end of a stub network."""
  case = references.load("sampler_dpmpp")
  x = case.given["noise"][:4]
  if kind == "edm":
    path, ends = paths.VarianceExploding(), (2.0, 0.5)
    denoiser = predictions.edm_denoiser(case.network("edm"))
  else:
    path, ends = paths.VariancePreserving(), (0.8, 0.2)
    denoiser = predictions.as_prediction(
      case.network("vp"), path, source="v", target="data"
    )
  velocity = predictions.as_prediction(
    denoiser, path, source="data", target="velocity"
  )
  return path, denoiser, velocity, x, ends, solve(velocity, x, ends)


FLOW_MAPS = {"euler": 1, "midpoint": 2, "heun": 2}


@pytest.mark.parametrize("name", [*ORDERS, "edm_heun", *FLOW_MAPS])
def test_order_on_a_network(name, x64):
  kind = "edm" if name == "edm_heun" else "vp"
  path, function, velocity, x, ends, truth = network_case(kind)
  if name in FLOW_MAPS:
    sampler, order = sampling.Jumps(), FLOW_MAPS[name]
    function = flow_maps.ode_step(velocity, solver=getattr(solvers, name))
  elif name == "edm_heun":
    sampler, order = sampling.EDMHeun(), 2
  else:
    sampler, order = ORDERS[name]
  errors = errors_of(sampler, function, x, path, ends, truth)
  np.testing.assert_allclose(orders(errors), order, atol=0.2)
