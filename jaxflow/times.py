"""Training laws of t and of pairs (t, s), and time grids for sampling.

Every law is a map (`transform`) of uniform or normal draws, so a test or a
comparison can inject the draws; calling the law draws them from a key.

References:
  Esser et al. 2024 (arXiv:2403.03206), section 3.1: logit-normal times; Karras
  et al. 2022 (arXiv:2206.00364), eq. 5 and table 1; Geng et al. 2025
  (arXiv:2505.13447), section 4.3: sorted pairs.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from jaxflow.types import Array

TimeSampler = Callable[[Array, int], Array]
PairSampler = Callable[[Array, int], tuple[Array, Array]]


class Law(Protocol):
  """A distribution of times as a map of standard draws."""

  def draw(self, key: Array, n: int) -> Array:
    """Draw what `transform` maps, `[n]`."""
    ...

  def transform(self, draws: Array) -> Array:
    """Map draws `[...]` to times `[...]`."""
    ...

  def __call__(self, key: Array, n: int) -> Array:
    """Sample n times `[n]`."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uniform:
  """t uniform on `[t_min, t_max]`.

  Example:
    >>> Uniform(t_max=2.0).transform(jnp.array([0.5])).tolist()
    [1.0]
  """

  t_min: float = 0.0
  t_max: float = 1.0

  def draw(self, key: Array, n: int) -> Array:
    """Draw uniform numbers in [0, 1), `[n]`."""
    return jax.random.uniform(key, (n,))

  def transform(self, draws: Array) -> Array:
    """Scale draws to `[t_min, t_max]`."""
    return self.t_min + (self.t_max - self.t_min) * draws

  def __call__(self, key: Array, n: int) -> Array:
    """Sample n times `[n]`."""
    return self.transform(self.draw(key, n))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Normal:
  """A law that maps standard normal draws, with `mean` and `std` before it."""

  mean: float = 0.0
  std: float = 1.0

  def draw(self, key: Array, n: int) -> Array:
    """Draw standard normal numbers `[n]`."""
    return jax.random.normal(key, (n,))

  def transform(self, draws: Array) -> Array:
    """Map draws to times."""
    raise NotImplementedError

  def __call__(self, key: Array, n: int) -> Array:
    """Sample n times `[n]`."""
    return self.transform(self.draw(key, n))


class LogitNormal(_Normal):
  """`t = sigmoid(mean + std N(0, 1))`, in (0, 1).

  Example:
    >>> LogitNormal().transform(jnp.array([0.0])).tolist()
    [0.5]
  """

  def transform(self, draws: Array) -> Array:
    """Return the sigmoid of the shifted and scaled draws."""
    return jax.nn.sigmoid(self.mean + self.std * draws)


class LogNormal(_Normal):
  """`ln t = mean + std N(0, 1)`: the noise levels of EDM.

  Example:
    >>> LogNormal().transform(jnp.array([0.0])).tolist()
    [1.0]
  """

  def transform(self, draws: Array) -> Array:
    """Return the exponential of the shifted and scaled draws."""
    return jnp.exp(self.mean + self.std * draws)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant:
  """Every time is `t`; one-step distillation trains at `t_max` only.

  Example:
    >>> Constant(t=1.0)(jax.random.key(0), 2).tolist()
    [1.0, 1.0]
  """

  t: float

  def __call__(self, key: Array, n: int) -> Array:
    """Return `t` n times, `[n]`."""
    del key
    return jnp.full((n,), self.t)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SortedPair:
  """Two draws of one law: t is the larger, s the smaller.

  Example:
    >>> t, s = SortedPair(law=Uniform())(jax.random.key(0), 100)
    >>> bool((s <= t).all())
    True
  """

  law: Law

  def transform(self, first: Array, second: Array) -> tuple[Array, Array]:
    """Map two arrays of draws to `(t, s)`."""
    a, b = self.law.transform(first), self.law.transform(second)
    return jnp.maximum(a, b), jnp.minimum(a, b)

  def __call__(self, key: Array, n: int) -> tuple[Array, Array]:
    """Sample n pairs `(t [n], s [n])`."""
    first, second = jax.random.split(key)
    return self.transform(self.law.draw(first, n), self.law.draw(second, n))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LimitedPair:
  """t and s from laws of their own, then `s = min(s, t)`: t keeps its law.

  Example:
    >>> pair = LimitedPair(t_law=Uniform(), s_law=Uniform(t_max=0.5))
    >>> t, s = pair(jax.random.key(0), 100)
    >>> bool((s <= t).all())
    True
  """

  t_law: Law
  s_law: Law

  def transform(self, first: Array, second: Array) -> tuple[Array, Array]:
    """Map draws of t and draws of s to `(t, s)`."""
    t = self.t_law.transform(first)
    return t, jnp.minimum(self.s_law.transform(second), t)

  def __call__(self, key: Array, n: int) -> tuple[Array, Array]:
    """Sample n pairs `(t [n], s [n])`."""
    first, second = jax.random.split(key)
    return self.transform(self.t_law.draw(first, n), self.s_law.draw(second, n))


Grid = Callable[[int], Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdjacentPair:
  """Neighbours on a grid: `t = g(i)`, `s = g(i + 1)`, i uniform.

  `grid` maps a number of points to a decreasing array of times, for instance
  `functools.partial(uniform_grid, t_min=0.0, t_max=1.0)`.

  Example:
    >>> import functools
    >>> grid = functools.partial(uniform_grid, t_min=0.0, t_max=1.0)
    >>> t, s = AdjacentPair(grid=grid, num_points=5)(jax.random.key(0), 3)
    >>> (t - s).tolist()
    [0.25, 0.25, 0.25]
  """

  grid: Grid
  num_points: int

  def __post_init__(self):
    if self.num_points < 2:
      raise ValueError(f"num_points={self.num_points}: give 2 or more")

  def __call__(self, key: Array, n: int) -> tuple[Array, Array]:
    """Sample n pairs `(t [n], s [n])`."""
    points = self.grid(self.num_points)
    index = jax.random.randint(key, (n,), 0, self.num_points - 1)
    return points[index], points[index + 1]


def uniform_grid(
  num_points: int, *, t_min: float = 0.0, t_max: float = 1.0
) -> Array:
  """Return `num_points` equally spaced times from `t_max` down to `t_min`.

  Example:
    >>> uniform_grid(3).tolist()
    [1.0, 0.5, 0.0]
  """
  return jnp.linspace(t_max, t_min, num_points)


def karras_grid(
  num_points: int,
  *,
  t_min: float = 0.002,
  t_max: float = 80.0,
  rho: float = 7.0,
) -> Array:
  """Return the grid of Karras et al. 2022, eq. 5, decreasing, `[num_points]`.

  Example:
    >>> [round(float(t), 3) for t in karras_grid(3)]
    [80.0, 2.515, 0.002]
  """
  ends = t_max ** (1 / rho), t_min ** (1 / rho)
  return jnp.linspace(*ends, num_points) ** rho


def log_grid(num_points: int, *, t_min: float, t_max: float) -> Array:
  """Return times equally spaced in `ln t`: in log-SNR on the EDM path.

  Example:
    >>> [round(float(t), 3) for t in log_grid(3, t_min=0.01, t_max=1.0)]
    [1.0, 0.1, 0.01]
  """
  if t_min <= 0:
    raise ValueError(
      f"a log grid cannot end at t_min={t_min}: use another grid"
    )
  return jnp.exp(jnp.linspace(math.log(t_max), math.log(t_min), num_points))


def shifted_grid(
  num_points: int, *, t_min: float = 0.0, t_max: float = 1.0, shift: float = 3.0
) -> Array:
  """Return `k u / (1 + (k - 1) u)` of a uniform grid u, scaled to the path.

  `shift` k > 1 puts more points near noise (Esser et al. 2024, eq. 23).

  Example:
    >>> shifted_grid(3).tolist()
    [1.0, 0.75, 0.0]
  """
  u = uniform_grid(num_points)
  return t_min + (t_max - t_min) * shift * u / (1 + (shift - 1) * u)
