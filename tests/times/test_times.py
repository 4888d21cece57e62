"""Time laws and grids against the tables of `schedules`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from jaxflow import times

TABLE = references.table("schedules")
PARAMETERS = references.hyper("schedules")
KARRAS = {k: v for k, v in PARAMETERS["karras"].items() if k != "n"}


@pytest.mark.parametrize(
  ("name", "grid"),
  [
    ("karras", functools.partial(times.karras_grid, **KARRAS)),
    ("uniform", times.uniform_grid),
    ("log_snr", functools.partial(times.log_grid, t_min=0.002, t_max=80.0)),
    (
      "shifted",
      functools.partial(times.shifted_grid, shift=PARAMETERS["shift"]),
    ),
  ],
)
def test_grid(name, grid, x64):
  expected = TABLE[f"grid/{name}"]
  value = grid(len(expected))
  np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-15)
  assert (jnp.diff(value) < 0).all()


def test_uniform_grid_between_two_times(x64):
  value = times.uniform_grid(5, t_min=0.2, t_max=1.0)
  np.testing.assert_allclose(value, [1.0, 0.8, 0.6, 0.4, 0.2], rtol=1e-12)


MEAN_FLOW = times.LogitNormal(mean=-0.4, std=1.0)
LAWS = {
  "logit_normal": MEAN_FLOW,
  "edm_lognormal": times.LogNormal(mean=-1.2, std=1.2),
}
PAIRS = {
  "mean_flow": times.SortedPair(law=MEAN_FLOW),
  "mean_flow_cifar": times.LimitedPair(
    t_law=times.LogitNormal(mean=-0.6, std=1.6),
    s_law=times.LogitNormal(mean=-4.0, std=1.6),
  ),
}


@pytest.mark.parametrize("name", LAWS)
def test_law(name, x64):
  value = LAWS[name].transform(jnp.asarray(TABLE["draws/normal"]))
  np.testing.assert_allclose(value, TABLE[f"law/{name}"], rtol=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_pair_law(name, x64):
  t, s = PAIRS[name].transform(
    jnp.asarray(TABLE["draws/normal"]), jnp.asarray(TABLE["draws/normal2"])
  )
  np.testing.assert_allclose(t, TABLE[f"law/{name}_t"], rtol=1e-12)
  np.testing.assert_allclose(s, TABLE[f"law/{name}_s"], rtol=1e-12)


def test_a_share_of_sorted_pairs_is_equal():
  key, n = jax.random.key(0), 10_000
  plain = times.SortedPair(law=times.Uniform())
  t, s = times.SortedPair(law=times.Uniform(), equal=0.25)(key, n)
  same = t == s
  # Four standard deviations of a share of n draws.
  assert abs(same.mean() - 0.25) < 4 * (0.25 * 0.75 / n) ** 0.5
  wanted_t, wanted_s = plain(key, n)
  np.testing.assert_array_equal(t, wanted_t)
  np.testing.assert_array_equal(s[~same], wanted_s[~same])


def test_uniform_law():
  value = times.Uniform(t_min=2.0, t_max=6.0).transform(jnp.array([0.0, 0.25]))
  assert value.tolist() == [2.0, 3.0]


def test_uniform_steps_start_at_each_time_equally_often():
  law = times.UniformSteps(num_steps=4, t_min=0.2, t_max=1.0)
  starts = [1.0, 0.8, 0.6, 0.4]
  draws = jnp.array([0.0, 0.25, 0.5, 0.75, 0.2499, 0.9999999])
  expected = [*starts, 1.0, 0.4]
  np.testing.assert_allclose(law.transform(draws), expected, rtol=1e-6)
  t = law(jax.random.key(0), 8000)
  counts = [(np.abs(t - start) < 1e-6).sum() for start in starts]
  assert sum(counts) == 8000
  # Three degrees of freedom: chi square above 25 has probability 1e-5.
  assert ((np.array(counts) - 2000) ** 2 / 2000).sum() < 25


GRID = functools.partial(times.karras_grid, t_min=0.002, t_max=80.0)
ADJACENT = times.AdjacentPair(grid=GRID, num_points=18)


@pytest.mark.parametrize(
  "pair", [*PAIRS.values(), ADJACENT], ids=[*PAIRS, "adjacent"]
)
def test_second_time_is_not_later(pair):
  t, s = pair(jax.random.key(0), 4096)
  assert t.shape == s.shape == (4096,)
  assert t.dtype == s.dtype == jnp.float32
  assert (s <= t).all()
  # Two draws, not one used twice.
  assert (s < t).mean() > 0.5


def test_limited_pair_keeps_the_law_of_t():
  # P(t < sigmoid(mean)) = 1/2 for a logit-normal t.
  t, _ = PAIRS["mean_flow_cifar"](jax.random.key(0), 10_000)
  share = (t < jax.nn.sigmoid(-0.6)).mean()
  assert abs(share - 0.5) < 4 * 0.5 / 100


def test_adjacent_pair_is_uniform_on_neighbours():
  n, intervals = 17_000, 17
  t, s = ADJACENT(jax.random.key(7), n)
  points = np.asarray(GRID(18))
  index = np.argmin(np.abs(points[None] - np.asarray(t)[:, None]), axis=1)
  np.testing.assert_array_equal(t, points[index])
  np.testing.assert_array_equal(s, points[index + 1])
  counts = np.bincount(index, minlength=intervals)
  assert len(counts) == intervals
  chi_square = ((counts - n / intervals) ** 2 / (n / intervals)).sum()
  # Mean 16, variance 32: five standard deviations above the mean.
  assert chi_square < 16 + 5 * np.sqrt(32)


@pytest.mark.parametrize(
  "law",
  [
    times.Uniform(),
    times.UniformSteps(num_steps=100),
    *LAWS.values(),
    *PAIRS.values(),
    ADJACENT,
  ],
  ids=lambda law: type(law).__name__,
)
def test_traces_once(law):
  traces = []

  @jax.jit
  def draw(key):
    traces.append(None)
    return law(key, 8)

  first, second = draw(jax.random.key(0)), draw(jax.random.key(1))
  assert len(traces) == 1
  assert not np.array_equal(first, second)
  np.testing.assert_array_equal(first, draw(jax.random.key(0)))


def test_constant():
  assert times.Constant(t=80.0)(jax.random.key(0), 3).tolist() == [80.0] * 3
