"""Orders of the solvers, and samplers against their reference numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import references

from jaxflow import flow_maps, guidance, paths, predictions, sampling, solvers

ORDERS = {"euler": 1, "midpoint": 2, "heun": 2}


def errors_of(solver, velocity, x, t, s, end):
  """Errors at s after 128, 256 and 512 steps, every row in its own times."""
  step = getattr(solvers, solver)

  @functools.partial(jax.jit, static_argnums=0)
  def solve(n):
    def advance(i, x):
      times = [t + (s - t) * ((i + j) / n) for j in (0, 1)]
      return solvers.step(step, velocity, x, *times, None)

    return jax.lax.fori_loop(0, n, advance, x)

  return [np.linalg.norm(solve(n) - end) for n in (128, 256, 512)]


def check_order(solver, errors):
  slopes = np.log2(errors[:-1]) - np.log2(errors[1:])
  np.testing.assert_allclose(slopes, ORDERS[solver], atol=0.1)


# Not on the linear and the variance-exploding path: there a Gaussian's velocity
# cancels the leading error of the midpoint rule, and order 3 is measured.
@pytest.mark.parametrize(
  "path", [paths.Trigonometric(), paths.VariancePreserving()], ids=str
)
@pytest.mark.parametrize("solver", ORDERS)
def test_order_on_a_gaussian(solver, path, x64):
  exact = oracle.Gaussian(path, (0.3, -0.8), 0.6)
  x = jax.random.normal(jax.random.key(0), (16, 2))
  t, s = jnp.linspace(0.9, 0.7, 16), jnp.linspace(0.3, 0.2, 16)
  end = exact.flow_map(x, t, s)
  check_order(solver, errors_of(solver, exact.velocity, x, t, s, end))


@pytest.mark.parametrize(
  "path", [paths.Linear(), paths.VarianceExploding()], ids=str
)
@pytest.mark.parametrize("solver", ORDERS)
def test_order_on_a_mixture(solver, path, x64):
  # The first three rows of the table go over short ways: the others need more
  # steps until the leading error rules.
  table = references.table("oracle_mixture")
  name = {"Linear": "linear"}.get(type(path).__name__, "variance_exploding")
  exact = oracle.Mixture(path, table["weights"], table["means"], table["stds"])
  x, t, s, end = (
    jnp.asarray(table[f"{name}/{k}"][:3]) for k in ("x", "t", "s", "flow_map")
  )
  check_order(solver, errors_of(solver, exact.velocity, x, t, s, end))


def test_every_solver_has_an_order():
  assert set(solvers.EVALUATIONS) == set(ORDERS)


@pytest.mark.parametrize("solver", ORDERS)
def test_evaluations(solver):
  calls = []

  def velocity(x, t):
    calls.append(t)
    return x

  t, s = jnp.array(1.0), jnp.array(0.5)
  getattr(solvers, solver)(velocity, jnp.ones(2), t, s)
  assert len(calls) == solvers.EVALUATIONS[solver]


@pytest.mark.parametrize("shape", [(), (2,), (3, 3, 2)])
@pytest.mark.parametrize("solver", ORDERS)
def test_one_sample_equals_a_batch(solver, shape, x64):
  step = getattr(solvers, solver)
  x = jax.random.normal(jax.random.key(0), (6, *shape))
  t, s = jnp.linspace(1.0, 0.6, 6), jnp.linspace(0.5, 0.0, 6)

  def velocity(x, t):
    return jnp.sin(x) * paths.expand(1 + t, x)

  each = jax.vmap(functools.partial(step, velocity))(x, t, s)
  np.testing.assert_allclose(step(velocity, x, t, s), each, rtol=1e-13)


def check(value, expected):
  """Compare in float64, at the scale of the samples."""
  assert value.dtype == jnp.float64
  limit = 1e-9 * np.abs(expected).max()
  np.testing.assert_allclose(value, expected, rtol=0, atol=limit)


@pytest.mark.parametrize(
  ("name", "solver", "guided", "limited"),
  [
    ("euler", solvers.euler, False, False),
    ("midpoint", solvers.midpoint, False, False),
    ("heun", solvers.heun, False, False),
    ("euler_cfg", solvers.euler, True, False),
    ("heun_cfg_interval", solvers.heun, True, True),
  ],
)
def test_ode_samplers(name, solver, guided, limited, x64):
  case = references.load("sampler_ode")
  network = case.network("net")
  if guided:
    network = guidance.classifier_free(
      network,
      scale=case.hyper["guidance"],
      null_cond=case.hyper["num_classes"],
      interval=tuple(case.hyper["guidance_interval"]) if limited else None,
    )
  value = sampling.sample(
    flow_maps.ode_step(network, solver=solver),
    paths.start(paths.Linear(), case.given["noise"]),
    case.given["times"],
    case.given["label"],
  )
  check(value, case.out[name])


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_flow_map_sampler(steps, x64):
  case = references.load("sampler_flow_map")
  value = sampling.sample(
    flow_maps.average_velocity(case.network("net")),
    case.given["noise"],
    jnp.linspace(1.0, 0.0, steps + 1),
    case.given["label"],
  )
  check(value, case.out[f"mean_flow_{steps}"])


def edm_case():
  case = references.load("sampler_consistency")
  flow_map = flow_maps.edm_skip(
    case.network("net"), sigma_data=case.hyper["sigma_data"]
  )
  path = paths.VarianceExploding(t_min=case.hyper["t_min"])
  return case, flow_map, path


def end_at(times, t_min):
  """Return the grid with the end of its last jump."""
  return jnp.append(times, t_min)


def test_one_consistency_step(x64):
  case, flow_map, path = edm_case()
  value = sampling.sample(
    flow_map,
    paths.start(path, case.given["noise"]),
    jnp.array([path.t_max, path.t_min]),
  )
  check(value, case.out["one_step"])


@pytest.mark.parametrize(
  ("name", "clip"), [("multistep", None), ("multistep_clip", 1.0)]
)
def test_consistency_steps(name, clip, x64):
  case, flow_map, path = edm_case()
  value = sampling.Consistency(clip=clip)(
    flow_map,
    paths.start(path, case.given["noise"]),
    end_at(case.given["times"], path.t_min),
    path=path,
    key=jax.random.key(0),
    step_noise=case.given["step_noise"],
  )
  check(value, case.out[name])


def test_denoiser_as_consistency_function(x64):
  # A denoiser ends at noise level 0, so nothing is subtracted from t when the
  # sample is renoised.
  case, _, _ = edm_case()
  denoiser = predictions.edm_denoiser(
    case.network("net"), sigma_data=case.hyper["sigma_data"]
  )
  path = paths.VarianceExploding(t_min=0.0)
  value = sampling.Consistency()(
    flow_maps.free(denoiser),
    paths.start(path, case.given["noise"]),
    end_at(case.given["times"], 0.0),
    path=path,
    key=jax.random.key(0),
    step_noise=case.given["step_noise"],
  )
  check(value, case.out["ecm_multistep"])


def test_consistency_steps_on_the_ring(x64):
  case = references.load("sampler_consistency_ring")
  path = paths.VarianceExploding(
    t_min=case.hyper["t_min"], t_max=case.hyper["t_max"]
  )
  value = sampling.Consistency()(
    flow_maps.linear_skip(case.network("net"), t_max=path.t_max),
    paths.start(path, case.given["noise"]),
    end_at(case.given["times"], path.t_min),
    path=path,
    key=jax.random.key(0),
    step_noise=case.given["step_noise"],
  )
  check(value, case.out["multistep"])


def test_a_grid_needs_two_times():
  x, times = jnp.ones((1, 1)), jnp.ones(1)
  given = {"path": paths.Linear(), "key": jax.random.key(0)}
  for sampler, options in [
    (sampling.sample, {}),
    (sampling.Consistency(), given),
  ]:
    with pytest.raises(ValueError, match="a grid of 1 times has no step"):
      sampler(lambda xt, t, s, cond: xt, x, times, **options)


def test_made_sampler_scales_the_noise():
  # One step to half the start: half of 80 times the unit noise.
  path = paths.VarianceExploding()
  draw = sampling.make_sampler(
    lambda params: lambda xt, t, s, cond: params * xt,
    sampler=lambda f, x, times, cond, path, key: sampling.sample(f, x, times),
    path=path,
    times=jnp.array([path.t_max, path.t_min]),
  )
  x = draw(jnp.array(0.5), jnp.ones((2, 2)), jax.random.key(0), None)
  np.testing.assert_allclose(x, 40.0)
