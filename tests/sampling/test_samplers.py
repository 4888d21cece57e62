"""Samplers against their reference numbers, and what they must not do."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from jaxflow import flow_maps, guidance, paths, predictions, sampling, times
from jaxflow.times import grids

KEY = jax.random.key(0)
# As users compile; tests compile in less time, without fused multiply-adds.
OPTIMIZED = {
  "xla_backend_optimization_level": 3,
  "xla_llvm_disable_expensive_passes": False,
}
EDM = paths.VarianceExploding()
VP = paths.VariancePreserving()


def check(value, expected):
  """Compare at the scale of the samples."""
  assert value.dtype == expected.dtype
  limit = 1e-9 if value.dtype == jnp.float64 else 1e-5
  limit *= np.abs(expected).max()
  np.testing.assert_allclose(value, expected, rtol=0, atol=limit)


@pytest.fixture(params=["float64", "float32"])
def load(request):
  """Read a case in float64, then in float32."""
  if request.param == "float32":
    yield functools.partial(references.load, dtype=jnp.float32)
  else:
    with jax.enable_x64(True):
      yield references.load


def draw(sampler, function, x, times, cond=None, *, path, **options):
  """Run a sampler as a sampler is run, compiled."""
  times = jnp.asarray(times, x.dtype)
  run = functools.partial(sampler, function, path=path, key=KEY, **options)
  return jax.jit(run)(x, times, cond)


def draw_optimized(sampler, function, x, grids, *, path, **options):
  """Run a sampler on several grids, each [n + 1], compiled as users do."""
  run = functools.partial(sampler, function, path=path, key=KEY, **options)
  run = jax.jit(run, compiler_options=OPTIMIZED)
  return [run(x, jnp.array(grid, jnp.float32)) for grid in grids]


@pytest.mark.parametrize(("name", "eta"), [("ddim", 0.0), ("ddim_eta", 0.5)])
def test_ddim(name, eta, load):
  case = load("sampler_ddim")
  denoiser = predictions.as_prediction(
    case.network("net"), VP, source=case.hyper["prediction"], target="data"
  )
  value = draw(
    sampling.DDIM(eta=eta),
    denoiser,
    case.given["noise"],
    case.given["times"],
    path=VP,
    step_noise=case.given["step_noise"],
  )
  check(value, case.out[name])


SOLVERS = {
  "order1": sampling.DPMSolver(order=1),
  "order2": sampling.DPMSolver(order=2),
  "order3": sampling.DPMSolver(order=3),
  "order3_published": sampling.DPMSolver(order=3, published=True),
  "order2_no_lower_final": sampling.DPMSolver(lower_order_final=False),
}


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("path", ["edm", "vp"])
def test_dpm_solver(name, path, load):
  case = load("sampler_dpmpp")
  expected = case.out.get(f"{path}_{name}")
  if expected is None:
    assert name == "order2_no_lower_final" and path == "vp"
    return
  raw = case.network(path)
  if path == "edm":
    denoiser = predictions.edm_denoiser(raw, sigma_data=0.5)
    start = EDM.t_max * case.given["noise"]
  else:
    denoiser = predictions.as_prediction(
      raw, VP, source=case.hyper["prediction_vp"], target="data"
    )
    start = case.given["noise"]
  grid = case.given[f"times_{path}"]
  line = {"edm": EDM, "vp": VP}[path]
  check(draw(SOLVERS[name], denoiser, start, grid, path=line), expected)


@pytest.mark.parametrize(
  ("name", "points"), [("heun_5", 5), ("heun_18", 18), ("churn_8", 8)]
)
def test_edm_heun(name, points, load):
  case = load("sampler_edm")
  churn = {}
  if name == "churn_8":
    churn = {k: case.hyper[k] for k in ("churn", "s_min", "s_max", "s_noise")}
  value = draw(
    sampling.EDMHeun(**churn),
    predictions.edm_denoiser(case.network("net"), sigma_data=0.5),
    paths.start(EDM, case.given["noise"]),
    grids.extended_grid(points + 1, grid=times.karras_grid),
    path=EDM,
    step_noise=case.given["step_noise"],
  )
  check(value, case.out[name])


def consistency_trajectory(raw, sigma_data=0.5):
  """G of (10.1), with the skips of the plain EDM form."""

  def jump(x, t, s, cond):
    total = t**2 + sigma_data**2
    value = raw(*predictions.edm_inputs(x, t, s, sigma_data), cond)
    skip = paths.expand(sigma_data**2 / total, x)
    out = paths.expand(t * sigma_data / jnp.sqrt(total), x)
    ratio = paths.expand(s / t, x)
    return ratio * x + (1 - ratio) * (skip * x + out * value)

  return jump


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_gamma(gamma, load):
  case = load("sampler_ctm")
  given = case.given
  jump = consistency_trajectory(case.network("net"))
  start = paths.start(EDM, given["noise"])
  value = draw(
    sampling.Gamma(gamma=gamma),
    jump,
    start,
    given["times"],
    path=EDM,
    step_noise=given["step_noise"],
  )
  check(value, case.out[f"gamma_{gamma}"])
  same = {
    0.0: (sampling.Jumps(), {}),
    1.0: (sampling.Consistency(), {"step_noise": given["step_noise"][:-1]}),
  }
  if gamma in same:
    other, options = same[gamma]
    again = draw(other, jump, start, given["times"], path=EDM, **options)
    check(again, case.out[f"gamma_{gamma}"])


@dataclasses.dataclass(frozen=True)
class TrigFlow(paths.Trigonometric):
  """The quarter circle of data with standard deviation `sigma_data`."""

  sigma_data: float = 0.5

  def sigma(self, t):
    return self.sigma_data * super().sigma(t)


def test_trig_flow_consistency(load):
  case = load("sampler_consistency")
  path = TrigFlow(t_max=np.pi / 2)
  raw = case.network("trig")

  def jump(x, t, s, cond):
    value = raw(x / path.sigma_data, t, s, cond)
    return (
      paths.expand(jnp.cos(t), x) * x
      - paths.expand(jnp.sin(t), x) * path.sigma_data * value
    )

  value = draw(
    sampling.Consistency(),
    jump,
    path.sigma_data * case.given["noise"],
    jnp.append(case.given["angles"], 0),
    path=path,
    step_noise=case.given["step_noise"][:1],
  )
  check(value, case.out["scm_two_step"])


def test_denoiser_as_consistency_function(load):
  # The grid ends at t_min > 0, but what a jump returns is taken for data.
  case = load("sampler_consistency")
  value = draw(
    sampling.Consistency(ends_on_data=True),
    predictions.edm_denoiser(case.network("net"), sigma_data=0.5),
    paths.start(EDM, case.given["noise"]),
    jnp.append(case.given["times"], EDM.t_min),
    path=EDM,
    step_noise=case.given["step_noise"],
  )
  check(value, case.out["ecm_multistep"])


@pytest.mark.parametrize("steps", [1, 2])
def test_improved_mean_flow(steps, load):
  case = load("sampler_flow_map")
  hyper, raw = case.hyper, case.network("imf")
  x = case.given["noise"]
  cond = {
    "label": case.given["label"],
    **{
      name: jnp.full(len(x), hyper[name], x.dtype)
      for name in ("omega", "t_start", "t_end")
    },
  }
  value = draw(
    sampling.Jumps(),
    flow_maps.average_velocity(lambda x, t, s, cond: raw(x, t, s, cond)[0]),
    x,
    jnp.linspace(1, 0, steps + 1),
    cond,
    path=paths.Linear(),
  )
  check(value, case.out[f"improved_mean_flow_{steps}"])


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_shortcut(steps, load):
  case = load("sampler_flow_map")
  raw = case.network("net")

  def smallest_on_the_diagonal(x, t, s, cond):
    return raw(x, t, jnp.where(t - s <= case.hyper["finest"], t, s), cond)

  value = draw(
    sampling.Jumps(),
    flow_maps.average_velocity(smallest_on_the_diagonal),
    case.given["noise"],
    jnp.linspace(1, 0, steps + 1),
    case.given["label"],
    path=paths.Linear(),
  )
  check(value, case.out[f"shortcut_{steps}"])


def moment_matching(network, kind, sd=0.5):
  """Return the flow map f of (15.4) on the linear path."""

  def jump(y, t, s, cond):
    t, s = paths.expand(t, y), paths.expand(s, y)
    total = (1 - t) ** 2 + t**2
    scaled = y / (sd * jnp.sqrt(total))
    out = network(scaled, t[:, 0, 0, 0], s[:, 0, 0, 0], cond)
    if kind == "euler":
      return y - (t - s) * sd * out
    along = (1 - t) * (1 - s) + t * s
    across = (1 - s) * t - (1 - t) * s
    return (along * y - across * jnp.sqrt(total) * sd * out) / total

  return jump


@pytest.mark.parametrize(
  ("name", "kind", "sampler"),
  [
    ("pushforward_uniform", "euler", sampling.Jumps()),
    ("pushforward_edm", "edm", sampling.Jumps()),
    ("pushforward_mid", "edm", sampling.Jumps()),
    ("restart_uniform", "euler", sampling.Consistency(ends_on_data=True)),
  ],
)
def test_moment_matching(name, kind, sampler, load):
  case = load("sampler_imm")
  given, network = case.given, case.network("net")
  grid = given["times_edm" if kind == "edm" else "times_uniform"]
  if name == "pushforward_mid":
    # Two steps, by way of the time where sigma / alpha is 1.4.
    grid = jnp.array([grid[0], 1.4 / 2.4, grid[-1]])
  if kind == "euler":
    network = guidance.classifier_free(
      network, scale=case.hyper["guidance"], null_cond=5
    )
  options = {}
  if not isinstance(sampler, sampling.Jumps):
    options = {"step_noise": 0.5 * given["step_noise"][: len(grid) - 2]}
  value = draw(
    sampler,
    moment_matching(network, kind),
    0.5 * given["noise"],
    grid,
    given["label"],
    path=paths.Linear(),
    **options,
  )
  check(value, case.out[name])


def test_samplers_need_two_times():
  for sampler in (
    sampling.Jumps(),
    sampling.Gamma(gamma=0.5),
    sampling.DDIM(),
    sampling.DPMSolver(),
    sampling.EDMHeun(),
  ):
    with pytest.raises(ValueError, match="a grid of 1 times has no step"):
      sampler(lambda x, *_: x, jnp.ones((1, 1)), jnp.ones(1), path=EDM, key=KEY)


def test_churn_is_spread_over_the_steps():
  # Where data is 0, a step from h to s scales by s / h whatever its order; in
  # two steps churn .2 raises t by a tenth, but not above s_max.
  z = jax.random.normal(KEY, (2, 3, 2))
  sampler = sampling.EDMHeun(churn=0.2, s_max=1.5, s_noise=1.2)
  value = sampler(
    lambda x, *_: 0 * x,
    jnp.ones((3, 2)),
    jnp.array([2.0, 1.0, 0.5]),
    path=EDM,
    key=KEY,
    step_noise=z,
  )
  middle = 1 / 2 + 1.2 * np.sqrt(1.1**2 - 1) * z[1]
  np.testing.assert_allclose(value, middle * 0.5 / 1.1, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  "path",
  [paths.Linear(), paths.Trigonometric(), paths.VarianceExploding()],
  ids=["linear", "circle", "exploding"],
)
def test_noise_of_an_empty_interval_is_none(path):
  # Compiled, a^2 - a^2 may be a rounding error below zero, whose root is NaN.
  t = jnp.linspace(max(path.t_min, 1e-3), 0.99, 4096, dtype=jnp.float32)
  ones = jnp.ones((4096, 2))

  @functools.partial(jax.jit, compiler_options=OPTIMIZED)
  def renoised(t, s):
    return sampling.renoise(path, ones, ones, t, s)

  np.testing.assert_array_equal(renoised(t, t), ones)


@pytest.mark.parametrize("gamma", [0.3, 0.9, 1.0])
def test_gamma_ends_where_noise_is_left(gamma):
  # On the linear path, unlike the exploding one, 1 - t scales as well: a map
  # that always ends at c ends there whatever was renoised before.
  for found in draw_optimized(
    sampling.Gamma(gamma=gamma),
    lambda x, t, s, cond: jnp.full_like(x, 0.7),
    jnp.ones((64, 2)),
    [[0.99, 0.5, end] for end in np.linspace(0.01, 0.3, 20)],
    path=paths.Linear(),
  ):
    np.testing.assert_array_equal(found, np.float32(0.7))


def test_ddim_forgets_pure_noise():
  # At alpha = 0 and eta = 1 nothing of the first noise is kept: c alpha_s and
  # fresh noise of sigma_s.
  z = jax.random.normal(KEY, (1, 64, 2))
  ends = np.linspace(0.05, 0.95, 40, dtype=np.float32)
  every = draw_optimized(
    sampling.DDIM(eta=1.0),
    lambda x, *_: jnp.full_like(x, 0.7),
    jnp.full((64, 2), 9.0),
    [[1.0, end] for end in ends],
    path=paths.Linear(),
    step_noise=z,
  )
  for end, found in zip(ends, every, strict=True):
    expected = 0.7 * (1 - end) + end * z[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_no_churn_outside_its_interval():
  still, churned = (
    draw_optimized(
      sampling.EDMHeun(churn=churn, s_max=0.1),
      lambda x, *_: 0.5 * x,
      jax.random.normal(KEY, (64, 2)),
      [[start, 1.0, 0.5] for start in np.linspace(2.0, 80.0, 40)],
      path=EDM,
    )
    for churn in (0.0, 0.5)
  )
  np.testing.assert_allclose(churned, still, rtol=1e-5)


def test_infinite_steps_stay_out_of_the_history():
  # lam is infinite at t = 1 and t = 0: orders 1, 1, 2, 3, 1.
  _, of_data = sampling.DPMSolver(
    order=3, lower_order_final=False
  ).coefficients(paths.Linear(), jnp.linspace(1, 0, 6))
  used = [[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 0]]
  np.testing.assert_array_equal(of_data != 0, np.array(used, bool))
  np.testing.assert_allclose(of_data[-1, 0], 1, rtol=1e-6)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize(
  "path", [paths.Linear(), paths.Trigonometric()], ids=["linear", "circle"]
)
def test_dpm_solver_from_pure_noise_to_data(path, order, final):
  # lam is infinite at both ends. A network that always says c is solved
  # exactly by every order: alpha c + sigma noise, and c at the end.
  x = jax.random.normal(KEY, (3, 2))
  for steps in (1, 2, 5):
    grid = jnp.linspace(1, 0, steps + 1)
    for stop in (steps + 1, steps):
      if stop < 2:
        continue
      sampler = sampling.DPMSolver(order=order, lower_order_final=final)
      end = sampler(
        lambda x, *_: jnp.full_like(x, 0.7), x, grid[:stop], path=path, key=KEY
      )
      alpha, sigma = path.alpha(grid[stop - 1]), path.sigma(grid[stop - 1])
      np.testing.assert_allclose(end, 0.7 * alpha + sigma * x, atol=1e-6)


def test_first_order_is_ddim(x64):
  # With one order less than it has names: (3) is (1) of DDIM, rearranged.
  case = references.load("sampler_dpmpp")
  denoiser = predictions.edm_denoiser(case.network("edm"))
  given = 80 * case.given["noise"], case.given["times_edm"]
  first = draw(sampling.DPMSolver(order=1), denoiser, *given, path=EDM)
  check(draw(sampling.DDIM(), denoiser, *given, path=EDM), first)


@pytest.mark.parametrize(
  "sampler",
  [
    sampling.DDIM(eta=1.0),
    sampling.EDMHeun(churn=10.0),
    sampling.Gamma(gamma=0.5),
    sampling.Consistency(),
  ],
  ids=lambda sampler: type(sampler).__name__,
)
def test_noise_comes_from_the_key(sampler):
  grid = jnp.array([3.0, 2.0, 1.0, 0.0])
  run = jax.jit(
    lambda key: sampler(
      lambda x, *_: x / 2,
      jnp.zeros((1000, 2)),
      grid,
      path=paths.VarianceExploding(t_min=0.0),
      key=key,
    )
  )
  first, again, other = run(KEY), run(KEY), run(jax.random.key(1))
  np.testing.assert_array_equal(first, again)
  assert jnp.abs(first - other).mean() > 0.01
  # Every row and element has noise of its own.
  assert jnp.abs(jnp.corrcoef(first.T)[0, 1]) < 0.15
  assert first.std() > 0.01


def count_rows(sampler, of, n, guide, grid, path):
  """Rows that the network sees, summed over a whole run of one sample."""
  rows = []

  def network(x, t, s, cond):
    jax.debug.callback(lambda: rows.append(len(x)))
    return x / 2 + 0 * paths.expand(cond, x)

  function = of(guide(network))
  key = jax.random.key(0)
  run = jax.jit(
    lambda x: sampler(function, x, grid, jnp.zeros(n), path=path, key=key)
  )
  jax.block_until_ready(run(jnp.ones((n, 1))))
  jax.effects_barrier()
  return sum(rows)


@pytest.mark.parametrize(
  ("sampler", "of", "calls"),
  [
    (sampling.Jumps(), flow_maps.ode_step, 5),
    (sampling.Gamma(gamma=0.5), flow_maps.average_velocity, 5),
    (sampling.DDIM(eta=0.5), flow_maps.free, 5),
    (sampling.DPMSolver(order=3), flow_maps.free, 5),
    (sampling.EDMHeun(churn=1.0), flow_maps.free, 9),
    (sampling.Consistency(), flow_maps.free, 5),
  ],
)
def test_network_calls(sampler, of, calls):
  path = paths.VarianceExploding(t_min=0.0, t_max=1.0)
  grid = jnp.linspace(1.0, 0.0, 6)
  plain = count_rows(sampler, of, 2, lambda f: f, grid, path)
  assert plain == 2 * calls
  if isinstance(sampler, sampling.Denoising):
    assert sampler.num_steps(calls) == 5


@pytest.mark.parametrize(
  ("sampler", "of"),
  [
    (sampling.Jumps(), flow_maps.ode_step),
    (sampling.DDIM(), flow_maps.free),
    (sampling.DPMSolver(order=3), flow_maps.free),
  ],
)
def test_no_second_forward_outside_the_interval(sampler, of):
  # Slopes at 1, .8, .6, .4, .2: two of the five are guided.
  path = paths.VarianceExploding(t_min=0.0, t_max=1.0)
  grid = jnp.linspace(1.0, 0.0, 6)
  guide = functools.partial(
    guidance.classifier_free, scale=2.0, null_cond=5, interval=(0.3, 0.7)
  )
  assert count_rows(sampler, of, 2, guide, grid, path) == 2 * (5 + 2)


@pytest.mark.parametrize(
  ("make", "words"),
  [
    (lambda: sampling.DDIM(eta=1.5), "eta 1.5"),
    (lambda: sampling.Gamma(gamma=-0.1), "gamma -0.1"),
    (lambda: sampling.DPMSolver(order=4), "order 4"),
    (lambda: sampling.DPMSolver(order=2, published=True), "published"),
    (lambda: sampling.EDMHeun().num_steps(4), "odd number"),
    (lambda: sampling.EDMHeun().check_path(VP), "VariancePreserving"),
  ],
)
def test_wrong_options_are_named(make, words):
  with pytest.raises(ValueError, match=words):
    make()
