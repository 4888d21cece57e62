"""The exact solution passes through every loss and sampler unharmed."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import references

from jaxflow import flow_maps, guidance, losses, paths, sampling, solvers, times

TABLE_PATHS = {
  "linear": paths.Linear(),
  "trigonometric": paths.Trigonometric(),
  "trigflow": paths.Trigonometric(t_max=math.pi / 2),
  "variance_preserving": paths.VariancePreserving(),
  "variance_exploding": paths.VarianceExploding(),
}
# The variance-preserving velocity is singular at t = 0, so it is left out of
# the tests that go there.
PATHS = [
  paths.Linear(),
  paths.Trigonometric(),
  paths.VarianceExploding(t_max=3.0),
]
MEAN, STD = (0.3, -0.8), 0.6
BATCH = 2**15


def gaussian(path):
  return oracle.Gaussian(path, MEAN, STD)


def batch_of(size, seed=0):
  """Draw data of the oracle's law, with their noise."""
  data_key, noise_key = jax.random.split(jax.random.key(seed))
  unit = jax.random.normal(data_key, (size, 2))
  return {
    "data": jnp.asarray(MEAN)[None] + STD * unit,
    "noise": jax.random.normal(noise_key, (size, 2)),
  }


def within(path, low=0.05, high=0.95):
  """Draw times strictly inside a path."""
  span = path.t_max - path.t_min
  return times.Uniform(
    t_min=path.t_min + low * span, t_max=path.t_min + high * span
  )


def z_score(samples):
  """Mean over its standard error, for every column of `[N, ...]`."""
  samples = np.asarray(samples)
  return samples.mean(0) / (samples.std(0) / math.sqrt(len(samples)))


def perturbed(network):
  """Return the network plus four features of its inputs, weighted by theta."""

  def model_fn(theta, x, t, s, cond):
    wave = jnp.stack([x[:, 0], x[:, 1] * t, jnp.sin(3 * t + s), s * 0 + 1])
    return network(x, t, s, cond) + (theta[:, None] * wave).sum(0)[:, None]

  return model_fn


def gradients(loss, network):
  """Gradient of each sample's loss by theta at theta = 0, `[B, 4]`."""
  model_fn = perturbed(network)

  @jax.jit
  @jax.jacfwd
  def compute(theta):
    return loss(functools.partial(model_fn, theta))[0]

  return compute(jnp.zeros(4))


@pytest.mark.parametrize("name", TABLE_PATHS)
def test_gaussian_table(name, x64):
  table = references.table("oracle_gaussian")
  exact = oracle.Gaussian(TABLE_PATHS[name], table["mean"], table["std"])
  t, s, x = (jnp.asarray(table[f"{name}/{k}"]) for k in ("t", "s", "x"))
  names = ["data", "noise", "velocity", "score"]
  names += ["flow_map", "average_velocity"]
  values = {k: getattr(exact, k)(x, t, s) for k in names}
  for k in ("irreducible_velocity", "irreducible_data"):
    values[k] = getattr(exact, k)(t)
  for k, value in values.items():
    np.testing.assert_allclose(
      value, table[f"{name}/{k}"], rtol=1e-10, atol=1e-12, err_msg=k
    )


@pytest.mark.parametrize("name", [k for k in TABLE_PATHS if k != "trigflow"])
def test_mixture_table(name, x64):
  table = references.table("oracle_mixture")
  exact = oracle.Mixture(
    TABLE_PATHS[name], table["weights"], table["means"], table["stds"]
  )
  t, x = (jnp.asarray(table[f"{name}/{k}"]) for k in ("t", "x"))
  for k in ("data", "noise", "velocity", "score"):
    np.testing.assert_allclose(
      getattr(exact, k)(x, t),
      table[f"{name}/{k}"],
      rtol=1e-10,
      atol=1e-12,
      err_msg=k,
    )


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_average_velocity_at_its_diagonal(path, x64):
  # Where s = t the value is the velocity and the derivatives are the limits of
  # those nearby, here 1e-4 away.
  exact = gaussian(path)
  x = batch_of(5)["noise"]
  t = jnp.full(5, 0.4 * path.t_max)
  directions = x[::-1], jnp.ones(5), jnp.full(5, 0.3)

  @jax.jit
  def evaluate(s):
    return jax.jvp(exact.average_velocity, (x, t, s), directions)

  (u, du), near = evaluate(t), evaluate(t - 1e-4)
  np.testing.assert_allclose(u, exact.velocity(x, t), rtol=1e-12)
  np.testing.assert_allclose(u, near[0], atol=2e-3)
  np.testing.assert_allclose(du, near[1], atol=2e-3)


@pytest.mark.parametrize(
  ("path", "block"),
  [*((path, (4, 1)) for path in PATHS), (PATHS[0], (1, 1))],
  ids=str,
)
def test_mean_flow_residual_vanishes(path, block, x64):
  exact = gaussian(path)

  @functools.partial(jax.jit, static_argnums=0)
  def loss(model_fn):
    return losses.mean_flow_loss(
      model_fn,
      jax.random.key(1),
      batch_of(64),
      path=path,
      sample_times=times.SortedPair(law=within(path, 0, 1)),
      block=block,
      norm_power=0.0,
      teacher=exact.velocity,
    )

  assert loss(exact.average_velocity)[0].max() <= 1e-9
  # The velocity is no average velocity: interval rows must notice.
  assert loss(exact.velocity)[1]["raw_interval"] > 1e-3


@pytest.mark.parametrize("path", [PATHS[0], PATHS[2]], ids=str)
def test_mean_flow_gradient_vanishes(path):
  exact = gaussian(path)

  def loss(model_fn):
    return losses.mean_flow_loss(
      model_fn,
      jax.random.key(2),
      batch_of(BATCH),
      path=path,
      sample_times=times.SortedPair(law=within(path)),
      block=(2, 1),
      norm_power=0.0,
    )

  assert np.abs(z_score(gradients(loss, exact.average_velocity))).max() < 4
  # The same number of samples exposes a network that is off.
  biased = gradients(loss, exact.velocity)
  assert np.abs(z_score(biased)).max() > 8


@pytest.mark.parametrize(
  ("path", "prediction"),
  [(PATHS[0], "velocity"), (PATHS[1], "velocity"), (PATHS[2], "data")],
  ids=str,
)
def test_flow_matching_at_its_minimum(path, prediction):
  exact = gaussian(path)
  law = within(path)
  t = law(jax.random.key(3), BATCH)
  network = getattr(exact, prediction)
  minimum = getattr(exact, f"irreducible_{prediction}")(t)

  @functools.partial(jax.jit, static_argnums=0)
  def loss(model_fn):
    return losses.flow_matching_loss(
      model_fn,
      jax.random.key(0),
      batch_of(BATCH),
      path=path,
      sample_times=lambda key, n: t,
      prediction=prediction,
    )

  assert abs(z_score(loss(network)[0] - minimum)) < 4
  assert np.abs(z_score(gradients(loss, network))).max() < 4

  def off(x, t, s, cond):
    return 1.2 * network(x, t, s, cond)

  assert np.abs(z_score(gradients(loss, off))).max() > 8


@functools.partial(jax.jit, static_argnums=(0, 1, 3, 4))
def consistency(path, f, pairs, solver, maker=flow_maps.free):
  """Residuals of f with the exact velocity as teacher, `[B]`."""
  exact = gaussian(path)
  return losses.consistency_loss(
    f,
    jax.random.key(0),
    batch_of(len(pairs[0])),
    path=path,
    sample_times=lambda key, n: pairs,
    flow_map=maker,
    teacher=exact.velocity,
    solver=solver,
  )[0]


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_consistency_residual_vanishes(path, x64):
  exact = gaussian(path)
  t = jnp.linspace(path.t_max, path.t_max / 10, 64)
  s = jnp.maximum(0.7 * t, path.t_min)

  def exact_step(velocity, xt, t, s):
    return exact.flow_map(xt, t, s)

  def residual(f, maker):
    return consistency(path, f, (t, s), exact_step, maker).max()

  jump = flow_maps.average_velocity
  assert residual(exact.flow_map, flow_maps.free) <= 1e-9
  assert residual(exact.average_velocity, jump) <= 1e-9
  assert residual(exact.velocity, jump) > 1e-3


@pytest.mark.parametrize(("solver", "order"), [("euler", 2), ("heun", 3)])
@pytest.mark.parametrize("path", PATHS, ids=str)
def test_consistency_residual_order(path, solver, order, x64):
  exact = gaussian(path)
  t = jnp.linspace(0.4, 0.8, 16) * path.t_max

  def residual(h):
    pairs = t, t - h * path.t_max
    step = getattr(solvers, solver)
    return jnp.sqrt(consistency(path, exact.flow_map, pairs, step))

  rates = jnp.log2(residual(1 / 256).mean() / residual(1 / 512).mean())
  assert abs(rates - order) < 0.1


@pytest.mark.parametrize(
  ("dtype", "tolerance"), [(jnp.float64, 1e-12), (jnp.float32, 1e-5)]
)
@pytest.mark.parametrize("path", [*PATHS, paths.VarianceExploding()], ids=str)
def test_one_step_equals_four(path, dtype, tolerance, x64):
  exact = gaussian(path)
  noise = batch_of(64)["noise"].astype(dtype)
  start = paths.start(path, noise)
  assert start.dtype == dtype
  jump = flow_maps.average_velocity(exact.average_velocity)
  grids = [jnp.linspace(path.t_max, path.t_min, n, dtype=dtype) for n in (2, 5)]
  draw = jax.jit(functools.partial(sampling.sample, jump))
  ends = [draw(start, grid) for grid in grids]
  assert ends[0].dtype == dtype
  # Rounding is relative to the largest point on the way, the start.
  limit = tolerance * max(1, float(jnp.abs(start).max()))
  np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=limit)
  t, s = (jnp.full(64, v, dtype) for v in (path.t_max, path.t_min))
  expected = exact.flow_map(start, t, s)
  np.testing.assert_allclose(ends[0], expected, rtol=0, atol=limit)


@pytest.mark.parametrize(
  ("path", "grid"),
  [
    (paths.Linear(), [1.0, 0.7, 0.3, 0.0]),
    (paths.Linear(t_min=0.1), [1.0, 0.7, 0.3, 0.1]),
    (paths.VarianceExploding(), [80.0, 5.0, 0.8, 0.002]),
    (paths.VarianceExploding(t_min=0.3), [80.0, 5.0, 0.8, 0.3]),
  ],
  ids=str,
)
def test_multistep_consistency_keeps_the_law(path, grid):
  exact = gaussian(path)
  batch = batch_of(BATCH)
  ends = jnp.full(BATCH, path.t_max), jnp.full(BATCH, path.t_min)
  start = paths.interpolate(path, batch["data"], batch["noise"], ends[0])
  x = sampling.Consistency()(
    exact.flow_map,
    start,
    jnp.array(grid),
    path=path,
    key=jax.random.key(0),
    step_noise=jax.random.normal(jax.random.key(5), (2, BATCH, 2)),
  )
  centre, spread = exact.centre(ends[1])[0], float(exact.spread(ends[1])[0])
  assert np.abs(z_score(x - centre[None])).max() < 4
  # The relative standard error of a standard deviation is 1 / sqrt(2 N).
  error = np.abs(np.asarray(x).std(0) / spread - 1).max()
  assert error * math.sqrt(2 * BATCH) < 4


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_guidance_of_two_gaussians(scale, x64):
  # Labels 0 and 1 are Gaussians, and the null label is their exact mixture.
  path = paths.Linear()
  means = np.array([[1.0, 0.0], [-0.5, 0.7]])
  classes = [oracle.Gaussian(path, m, 0.4) for m in means]
  both = oracle.Mixture(path, [0.5, 0.5], means, [0.4, 0.4])

  def network(x, t, s, cond):
    velocities = [c.velocity(x, t) for c in (*classes, both)]
    return jnp.stack(velocities)[cond, jnp.arange(len(x))]

  x = batch_of(32)["noise"]
  t = jnp.linspace(0.0, 1.0, 32)
  label = jnp.arange(32) % 2
  guided = guidance.classifier_free(network, scale=scale, null_cond=2)
  v = [c.velocity(x, t) for c in classes]
  labelled = jnp.where((label == 0)[:, None], v[0], v[1])
  expected = scale * labelled + (1 - scale) * both.velocity(x, t)
  np.testing.assert_allclose(
    guided(x, t, t, label), expected, rtol=1e-12, atol=1e-12
  )
