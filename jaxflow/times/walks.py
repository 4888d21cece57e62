"""Distributions of several consecutive steps on a grid.

References:
  Salimans, Ho 2022 (arXiv:2202.00512), algorithm 2: a step and its halves; Kim
  et al. 2023 (arXiv:2310.02279): walks of any length.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxflow.options import Count
from jaxflow.times import grids
from jaxflow.times.laws import uniform_draws
from jaxflow.types import Array

TripleSampler = Callable[[Array, int], tuple[Array, Array, Array]]
# Walks `[H + 1, B]` of decreasing times, and times s `[B]` to jump to.
TrajectorySampler = Callable[[Array, int], tuple[Array, Array]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdjacentTriple:
  """Ends and middle of one of N steps: `g(2i)`, `g(2i + 1)`, `g(2i + 2)`.

  The grid g has 2 N + 1 points and i is uniform on 0..N - 1: the middle splits
  a student's step into two of a teacher.

  Example:
    >>> triple = AdjacentTriple(grid=grids.uniform_grid, num_steps=1)
    >>> [time.tolist() for time in triple(jax.random.key(0), 1)]
    [[1.0], [0.5], [0.0]]
  """

  grid: grids.Grid
  num_steps: Count

  def __post_init__(self) -> None:
    if self.num_steps < 1:
      raise ValueError(f"num_steps={self.num_steps}: give 1 or more")

  def __call__(self, key: Array, n: int) -> tuple[Array, Array, Array]:
    """Sample n triples `(t [n], m [n], s [n])`."""
    points = self.grid(2 * self.num_steps + 1)
    index = 2 * jax.random.randint(key, (n,), 0, self.num_steps, jnp.int32)
    return points[index], points[index + 1], points[index + 2]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrajectoryTimes:
  """A walk of h grid points from t = g(i) to u = g(i + h), then s = g(j) <= u.

  One h for the whole batch, with P(h) proportional to h on 1..N-1; i is uniform
  where the walk fits, j uniform on i+h..N-1 (Kim et al. 2023,
  arXiv:2310.02279). `solver_steps` fixes h.

  Example:
    >>> walks = TrajectoryTimes(grid=grids.uniform_grid, num_points=5)
    >>> walk, s = walks.transform(2, jnp.array([0.0]), jnp.array([0.99]))
    >>> walk[:, 0].tolist(), s.tolist()
    ([1.0, 0.75, 0.5, 0.5, 0.5], [0.0])
  """

  grid: grids.Grid
  num_points: Count
  solver_steps: Count | None = None

  def __post_init__(self) -> None:
    h = self.solver_steps
    if h is not None and not 1 <= h < self.num_points:
      raise ValueError(
        f"solver_steps={h}: a grid of {self.num_points} points has walks of 1 "
        f"to {self.num_points - 1} steps"
      )

  def probabilities(self) -> Array:
    """Return P(h) for h = 1..N-1, `[N - 1]`."""
    h = jnp.arange(1.0, self.num_points)
    return h / h.sum()

  def transform(
    self, h: Array | int, first: Array, second: Array
  ) -> tuple[Array, Array]:
    """Map a number of steps h, and uniform draws of i and j, to times.

    The times of the walk are `[H + 1, n]`, where H is `solver_steps` or N - 1
    and the rows after h repeat u; s is `[n]`.
    """
    points = self.grid(self.num_points)
    i = _floor(first, self.num_points - h)
    j = i + h + _floor(second, self.num_points - h - i)
    walk = jnp.arange((self.solver_steps or self.num_points - 1) + 1)
    return points[i[None] + jnp.minimum(walk, h)[:, None]], points[j]

  def __call__(self, key: Array, n: int) -> tuple[Array, Array]:
    """Sample n walks `[H + 1, n]` and times s `[n]`."""
    h_key, i_key, j_key = jax.random.split(key, 3)
    h = self.solver_steps
    if h is None:
      logits = jnp.log(self.probabilities()).astype(jnp.float32)
      h = 1 + jax.random.categorical(h_key, logits)
    draws = uniform_draws(i_key, n), uniform_draws(j_key, n)
    return self.transform(h, *draws)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartTimes:
  """The start times of pairs, triples or walks of another sampler.

  Example:
    >>> walks = TrajectoryTimes(grid=grids.uniform_grid, num_points=2)
    >>> StartTimes(sample_times=walks)(jax.random.key(0), 3).tolist()
    [1.0, 1.0, 1.0]
  """

  sample_times: Callable[[Array, int], Array | tuple[Array, ...]]

  def __call__(self, key: Array, n: int) -> Array:
    """Sample n times `[n]`."""
    first = jax.tree.leaves(self.sample_times(key, n))[0]
    return first[0] if first.ndim == 2 else first


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndTimes:
  """The first and the last times of pairs, triples or walks of another sampler.

  Example:
    >>> walks = TrajectoryTimes(grid=grids.uniform_grid, num_points=2)
    >>> t, s = EndTimes(sample_times=walks)(jax.random.key(0), 3)
    >>> t.tolist(), s.tolist()
    ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
  """

  sample_times: Callable[[Array, int], tuple[Array, ...]]

  def __call__(self, key: Array, n: int) -> tuple[Array, Array]:
    """Sample n pairs `(t [n], s [n])`."""
    first, *_, last = self.sample_times(key, n)
    return (first[0] if first.ndim == 2 else first), last


def _floor(draws: Array, count: Array | int) -> Array:
  """Map draws in [0, 1) to 0..count-1; a product may round up to count."""
  return jnp.minimum((draws * count).astype(jnp.int32), count - 1)
