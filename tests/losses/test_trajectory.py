"""Times of consistency trajectory models, and their loss at exact solutions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import references

from jaxflow import flow_maps, losses, paths, times

TABLE = references.table("schedules")
POINTS = references.hyper("schedules")["ctm_num_scales"]
WALK = times.TrajectoryTimes(grid=times.karras_grid, num_points=POINTS)
INDEX = times.TrajectoryTimes(
  grid=lambda n: jnp.arange(float(n)), num_points=POINTS
)


def test_probabilities(x64):
  np.testing.assert_array_equal(TABLE["ctm/h"], range(1, POINTS))
  np.testing.assert_allclose(
    WALK.probabilities(), TABLE["ctm/h_probabilities"], rtol=1e-12
  )


def test_number_of_steps_follows_the_table():
  keys = jax.random.split(jax.random.key(0), 20_000)
  walks, _ = jax.vmap(lambda key: INDEX(key, 1))(keys)
  h = np.asarray(walks[:, -1, 0] - walks[:, 0, 0]).astype(int)
  share = np.bincount(h, minlength=POINTS)[1:] / len(keys)
  expected = TABLE["ctm/h_probabilities"]
  deviation = np.sqrt(expected * (1 - expected) / len(keys))
  assert (np.abs(share - expected) < 4.5 * deviation).all()


@pytest.mark.parametrize("h", [1, 5, POINTS - 1])
def test_a_walk_of_h_steps(h):
  n = 40_000
  draws = (jax.random.uniform(k, (n,)) for k in jax.random.split(KEY))
  walk, s = INDEX.transform(h, *draws)
  assert walk.shape == (POINTS, n) and s.shape == (n,)
  steps = jnp.arange(POINTS, dtype=jnp.float32)
  expected = walk[:1] + jnp.minimum(steps, h)[:, None]
  np.testing.assert_array_equal(walk, expected)
  # i is uniform on 0..N-1-h, and j on i+h..N-1.
  starts = np.bincount(np.asarray(walk[0]).astype(int))
  assert len(starts) == POINTS - h
  assert abs(starts * (POINTS - h) / n - 1).max() < 0.15
  ends = np.bincount(np.asarray(s)[np.asarray(walk[0]) == 0].astype(int))
  assert len(ends) == POINTS and (ends[:h] == 0).all()
  assert abs(ends[h:] * (POINTS - h) / ends.sum() - 1).max() < 0.3


KEY = jax.random.key(3)


def test_draws_near_one_stay_on_the_grid():
  last = jnp.array([np.nextafter(np.float32(1), np.float32(0))])
  walk, s = WALK.transform(1, last, last)
  np.testing.assert_array_equal(walk[-1], s)
  np.testing.assert_allclose(s, 0.002, rtol=1e-5)


def test_fixed_number_of_steps():
  fixed = times.TrajectoryTimes(
    grid=times.karras_grid, num_points=POINTS, solver_steps=4
  )
  walk, s = fixed(KEY, 100)
  assert walk.shape == (5, 100)
  assert (walk[1:] < walk[:-1]).all() and (s <= walk[-1]).all()
  with pytest.raises(ValueError, match="solver_steps=18"):
    times.TrajectoryTimes(
      grid=times.karras_grid, num_points=POINTS, solver_steps=18
    )


def test_karras_law(x64):
  u = jnp.linspace(0, 1, POINTS)
  law = times.Karras()
  np.testing.assert_allclose(law.transform(u), TABLE["grid/karras"], rtol=1e-10)


def test_rows_of_two_laws():
  law = times.Interleaved(
    first=times.Uniform(), second=times.Uniform(t_min=2, t_max=3), block=(4, 1)
  )
  high = np.asarray(law(KEY, 8)) >= 2
  np.testing.assert_array_equal(high, [False, True, True, True] * 2)


PATH = paths.VarianceExploding()
EXACT = oracle.Gaussian(PATH, (0.3, -0.8), 0.6)
SIGMA_DATA = 0.5


def exact_network(x, t, s, cond=None, *, shift=0.0):
  """Return the raw network with g = x - t u, u the exact average velocity."""
  t, s = jnp.exp(4 * t), jnp.exp(4 * s)
  total = t**2 + SIGMA_DATA**2
  x = x * jnp.sqrt(total)[:, None]
  g = x - t[:, None] * EXACT.average_velocity(x, t, s)
  c_skip, c_out = SIGMA_DATA**2 / total, t * SIGMA_DATA / jnp.sqrt(total)
  return (g - c_skip[:, None] * x) / c_out[:, None] + shift


def exact_step(velocity, xt, t, s):
  del velocity
  return EXACT.flow_map(xt, t, s)


def loss_of(
  shift, key=KEY, *, n=512, points=POINTS, solver_steps=None, **options
):
  """Return the loss of a network that is off by `shift`."""
  data_key, loss_key = jax.random.split(key)
  unit = jax.random.normal(data_key, (n, 2))
  compute = functools.partial(
    losses.consistency_trajectory_loss,
    functools.partial(exact_network, shift=shift),
    loss_key,
    {"data": jnp.asarray(EXACT.mean)[None] + EXACT.std * unit},
    path=PATH,
    sample_times=times.TrajectoryTimes(
      grid=times.karras_grid, num_points=points, solver_steps=solver_steps
    ),
    **{"target_fn": exact_network, "teacher": EXACT.velocity} | options,
  )
  return jax.jit(compute)()


def test_flow_map_of_the_exact_network(x64):
  x = jax.random.normal(KEY, (4, 2)) * 3
  t = jnp.array([80.0, 5.0, 0.3, 0.3])
  s = jnp.array([0.002, 0.2, 0.1, 0.3])
  jump = flow_maps.trajectory(exact_network, sigma_data=SIGMA_DATA)
  value = jump(x, t, s, None)
  np.testing.assert_allclose(value, EXACT.flow_map(x, t, s), rtol=1e-9)
  np.testing.assert_array_equal(value[3], x[3])


def test_nothing_is_left_at_the_exact_solution(x64):
  @jax.jit
  def loss(shift):
    return loss_of(shift, solver=exact_step, denoising_weight=0.0)[0]

  assert loss(0.0).max() < 1e-18 < 1e-4 < loss(0.1).max()


def test_what_is_left_is_the_error_of_the_solver(x64):
  # Walks over the same share of the grid, whatever is drawn.
  coarse, fine = (
    loss_of(0.0, points=n, solver_steps=n // 4, denoising_weight=0.0)[0].mean()
    for n in (20, 80)
  )
  # Heun is of order 2, and the loss is a square: 4^4 = 256 asymptotically.
  assert 50 < coarse / fine < 1000


def test_the_denoising_term_is_least_at_the_denoiser(x64):
  t = 0.7
  options = {
    "n": 2**14,
    "solver": exact_step,
    "denoising_times": lambda key, n: jnp.full(n, t),
  }
  _, metrics = loss_of(0.0, **options)
  weight = (t**2 + SIGMA_DATA**2) / (t * SIGMA_DATA) ** 2
  least = weight * EXACT.irreducible_data(jnp.array([t]))[0]
  np.testing.assert_allclose(metrics["denoising"], least, rtol=0.05)
  # c_out^2 weight = 1: a shift d of the raw network adds d^2.
  _, shifted = loss_of(2.0, **options)
  added = shifted["denoising"] - metrics["denoising"]
  np.testing.assert_allclose(added, 4.0, rtol=0.05)


def test_weights_vanish_with_the_residual(x64):
  @jax.jit
  def weights(shift, scale):
    _, metrics = loss_of(
      shift,
      solver=exact_step,
      discriminator=lambda x, cond: scale * x.sum(1),
      last_layer=(
        lambda layer: functools.partial(exact_network, shift=layer),
        shift,
      ),
    )
    return metrics["lam_denoising"], metrics["lam_adversarial"]

  denoising, adversarial = weights(0.0, 1.0)
  assert denoising < 1e-9
  np.testing.assert_allclose(adversarial, 0.01)
  denoising, adversarial = weights(0.1, 1.0)
  assert denoising > 1e-3 and 0.01 < adversarial < 10
  # A blind discriminator would have a weight without bound.
  np.testing.assert_allclose(weights(0.1, 0.0)[1], 10.0)


def test_parts_add_up(x64):
  options = {"discriminator": lambda x, cond: x.sum(1), "solver": exact_step}
  loss, metrics = loss_of(0.1, denoising_weight=2.0, **options)
  expected = metrics["raw"] + 2 * metrics["denoising"] + metrics["adversarial"]
  np.testing.assert_allclose(loss.mean(), expected, rtol=1e-12)


def test_the_teacher_is_called_for_the_steps_of_the_walk_only():
  calls = []

  def counted(velocity, xt, t, s):
    jax.debug.callback(lambda: calls.append(None))
    return xt

  def net(xt, t, s, cond):
    return 0 * xt

  walk = times.karras_grid(POINTS)[jnp.array([2, 5, 9, 9, 9, 9])]
  losses.consistency_trajectory_loss(
    net,
    KEY,
    {"data": jnp.ones((4, 2))},
    path=PATH,
    sample_times=lambda key, n: (
      jnp.stack([walk] * n, axis=1),
      walk[-1] * jnp.ones(n),
    ),
    target_fn=net,
    teacher=net,
    solver=counted,
  )
  jax.effects_barrier()
  assert len(calls) == 2
