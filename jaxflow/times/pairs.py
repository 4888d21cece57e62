"""Laws of training pairs (t, s), s <= t.

References:
  Geng et al. 2025 (arXiv:2505.13447), section 4.3: sorted pairs.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp

from jaxflow import rows
from jaxflow.options import Amount, BelowOne, Count, End, Positive, Share
from jaxflow.paths import as_times
from jaxflow.times import grids, laws
from jaxflow.types import Array

PairSampler = Callable[[Array, int], tuple[Array, Array]]
# Of what a sampler draws one for each row.
Kind = Literal["times", "pairs", "triples", "walks"]

_EXAMPLES: dict[Kind, str] = {
  "times": "Uniform()",
  "pairs": "SortedPair(law=Uniform())",
  "triples": "AdjacentTriple(grid=..., num_steps=8)",
  "walks": "TrajectoryTimes(grid=..., num_points=18)",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SortedPair:
  """Two draws of one law: t is the larger, s the smaller.

  Of a share `equal` of the pairs, drawn at random, s = t. It is for losses that
  treat such rows differently anyway, where a device has too few rows to hold as
  few others as wanted: half of one row in two is a quarter.

  Example:
    >>> t, s = SortedPair(law=laws.Uniform())(jax.random.key(0), 100)
    >>> bool((s <= t).all())
    True
  """

  law: laws.Law
  equal: Share = 0.0

  def __post_init__(self) -> None:
    if not 0 <= self.equal <= 1:
      raise ValueError(f"equal={self.equal}: give a share from 0 to 1")

  def transform(self, first: Array, second: Array) -> tuple[Array, Array]:
    """Map two arrays of draws to `(t, s)`."""
    a, b = self.law.transform(first), self.law.transform(second)
    return jnp.maximum(a, b), jnp.minimum(a, b)

  def __call__(self, key: Array, n: int) -> tuple[Array, Array]:
    """Sample n pairs `(t [n], s [n])`."""
    first, second = jax.random.split(key)
    t, s = self.transform(self.law.draw(first, n), self.law.draw(second, n))
    if self.equal:
      share = jnp.float32(self.equal)
      same = jax.random.bernoulli(jax.random.fold_in(key, 2), share, (n,))
      s = jnp.where(same, t, s)
    return t, s


@dataclasses.dataclass(frozen=True, kw_only=True)
class SortedLaws:
  """A draw of each of two laws: t is the larger, s the smaller.

  Example:
    >>> pair = SortedLaws(
    ...     first_law=laws.Constant(t=0.25), second_law=laws.Constant(t=0.5))
    >>> [x.tolist() for x in pair(jax.random.key(0), 1)]
    [[0.5], [0.25]]
  """

  first_law: laws.Law
  second_law: laws.Law

  def __call__(self, key: Array, n: int) -> tuple[Array, Array]:
    """Sample n pairs `(t [n], s [n])`."""
    first, second = jax.random.split(key)
    a, b = self.first_law(first, n), self.second_law(second, n)
    return jnp.maximum(a, b), jnp.minimum(a, b)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LimitedPair:
  """t and s from laws of their own, then `s = min(s, t)`: t keeps its law.

  Example:
    >>> pair = LimitedPair(t_law=laws.Uniform(), s_law=laws.Uniform(t_max=0.5))
    >>> t, s = pair(jax.random.key(0), 100)
    >>> bool((s <= t).all())
    True
  """

  t_law: laws.Law
  s_law: laws.Law

  def transform(self, first: Array, second: Array) -> tuple[Array, Array]:
    """Map draws of t and draws of s to `(t, s)`."""
    t = self.t_law.transform(first)
    return t, jnp.minimum(self.s_law.transform(second), t)

  def __call__(self, key: Array, n: int) -> tuple[Array, Array]:
    """Sample n pairs `(t [n], s [n])`."""
    first, second = jax.random.split(key)
    return self.transform(self.t_law.draw(first, n), self.s_law.draw(second, n))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeparatePair:
  """Laws of their own for t and s of interval rows, and for flow rows.

  On interval rows `t >= gap` and `s <= t - gap`; on flow rows `s = t >= gap`.

  Attributes:
    t_law: Law of t on interval rows.
    s_law: Law of s on interval rows.
    flow_law: Law of flow rows.
    block: Which rows are interval rows; see `rows`.
    gap: Least t, and least t - s on interval rows.

  References:
    SoFlow (arXiv:2512.15657, official code).

  Example:
    >>> half = laws.Constant(t=0.5)
    >>> pair = SeparatePair(
    ...     t_law=half, s_law=half, flow_law=half, block=(2, 1), gap=0.25)
    >>> [x.tolist() for x in pair(jax.random.key(0), 2)]
    [[0.5, 0.5], [0.25, 0.5]]
  """

  t_law: laws.Law
  s_law: laws.Law
  flow_law: laws.Law
  block: rows.Block = (4, 1)
  gap: Positive = 1e-4

  def __call__(self, key: Array, n: int) -> tuple[Array, Array]:
    """Sample n pairs `(t [n], s [n])`."""
    first, second, third = jax.random.split(key, 3)
    interval = rows.is_interval(self.block, n)
    t = jnp.where(interval, self.t_law(first, n), self.flow_law(third, n))
    t = jnp.maximum(t, self.gap)
    s = jnp.minimum(self.s_law(second, n), t - self.gap)
    return t, jnp.where(interval, s, t)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RectifiedPair:
  """t near the ends of time, and s below it by a gap, often at 0.

    x = margin + (1 - 2 margin) ln(1 + u (e^a - 1)) / a
    t = x or 1 - x with probability 1/2,   s = max(t - gap, 0),
    s = 0 also where t > late and s < early

  u is uniform and t at most `t_max`. The steep part of a rectified path is at
  its ends, and one call needs the pair (t_max, 0).

  Attributes:
    gap_law: Law of t - s.
    sharpness: a.
    margin: Least distance of t from 0 and 1.
    t_max: Largest t.
    late: Of the long jumps that go on to 0, the least t.
    early: Of the long jumps that go on to 0, the largest s.

  References:
    Re-MeanFlow (official code, Xinxi-Zhang/Re-MeanFlow).

  Example:
    >>> pair = RectifiedPair(
    ...     gap_law=laws.Constant(t=0.25), t_max=0.75, margin=0.0)
    >>> t, s = pair.transform(
    ...     jnp.zeros(2), jnp.array([0.0, 1.0]), jnp.full(2, 0.25))
    >>> t.tolist(), s.tolist()
    ([0.0, 0.75], [0.0, 0.5])
  """

  gap_law: laws.Law
  sharpness: Positive = 4.0
  margin: BelowOne = 1e-5
  t_max: End = 80 / 81
  late: Share = 0.8
  early: Share = 0.4

  def transform(
    self, draws: Array, side: Array, gap: Array
  ) -> tuple[Array, Array]:
    """Map two arrays of uniform draws, and gaps, to `(t, s)`."""
    x = jnp.log1p(draws * jnp.expm1(self.sharpness)) / self.sharpness
    x = self.margin + (1 - 2 * self.margin) * x
    t = jnp.minimum(jnp.where(side < 0.5, x, 1 - x), self.t_max)
    s = jnp.maximum(t - gap, 0)
    return t, jnp.where((t > self.late) & (s < self.early), 0, s)

  def __call__(self, key: Array, n: int) -> tuple[Array, Array]:
    """Sample n pairs `(t [n], s [n])`."""
    first, second, third = jax.random.split(key, 3)
    draws, side = (laws.uniform_draws(k, n) for k in (first, second))
    return self.transform(draws, side, self.gap_law(third, n))


class Quantiles(Protocol):
  """A law of times that can be truncated."""

  def cdf(self, t: Array) -> Array:
    """Return the probability of a time below `t [...]`."""
    ...

  def quantile(self, p: Array) -> Array:
    """Return the time below which the probability is `p [...]`."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class TruncatedPair:
  """t from a law on `[t_min, t_max]`, s from the same law on `[t_min, t]`.

  Example:
    >>> pair = TruncatedPair(law=laws.Uniform(), t_min=0.0, t_max=0.5)
    >>> [float(x) for x in pair.transform(jnp.array(0.5), jnp.array(0.5))]
    [0.25, 0.125]
  """

  law: Quantiles
  t_min: Amount
  t_max: End

  def __post_init__(self) -> None:
    _check_quantiles(self.law)

  def transform(self, first: Array, second: Array) -> tuple[Array, Array]:
    """Map two arrays of uniform draws to `(t, s)`."""
    low = jnp.full_like(first, self.t_min)
    t = _between(self.law, first, low, jnp.full_like(first, self.t_max))
    return t, _between(self.law, second, low, t)

  def __call__(self, key: Array, n: int) -> tuple[Array, Array]:
    """Sample n pairs `(t [n], s [n])`."""
    keys = jax.random.split(key)
    return self.transform(*(laws.uniform_draws(k, n) for k in keys))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GapPair:
  """A gap from one law, s from another on `[t_min, t_max - gap]`, t = s + gap.

  For laws of times in (0, 1), those of terminal velocity matching (Zhou et al.
  2025, arXiv:2511.19797).

  Example:
    >>> pair = GapPair(gap_law=laws.Uniform(), s_law=laws.Uniform())
    >>> [float(x) for x in pair.transform(jnp.array(0.5), jnp.array(0.5))]
    [0.75, 0.25]
  """

  gap_law: laws.Law
  s_law: Quantiles
  t_min: Amount = 0.0
  t_max: End = 1.0

  def __post_init__(self) -> None:
    _check_quantiles(self.s_law)

  def transform(self, first: Array, second: Array) -> tuple[Array, Array]:
    """Map draws of the gap's law and uniform draws to `(t, s)`."""
    gap = self.gap_law.transform(first)
    low = jnp.full_like(gap, self.t_min)
    # A gap longer than all times leaves s no room: the pair is both ends.
    s = _between(self.s_law, second, low, jnp.maximum(self.t_max - gap, low))
    return jnp.minimum(s + gap, self.t_max), s

  def __call__(self, key: Array, n: int) -> tuple[Array, Array]:
    """Sample n pairs `(t [n], s [n])`."""
    first, second = jax.random.split(key)
    return self.transform(
      self.gap_law.draw(first, n), laws.uniform_draws(second, n)
    )


def _check_quantiles(law: Any) -> None:
  """Raise ValueError unless a law can be truncated."""
  if not hasattr(law, "quantile"):
    raise ValueError(
      f"law {type(law).__name__} cannot be truncated: use uniform or "
      "logit_normal"
    )


def _between(law: Quantiles, draws: Array, low: Array, high: Array) -> Array:
  """Map uniform draws to times of a law on [low, high]."""
  start, stop = law.cdf(low), law.cdf(high)
  value = law.quantile(start + (stop - start) * draws)
  # Rounding of the two maps must not leave the interval.
  return jnp.clip(value, low, high)


def at(sampler: Any, progress: Array | None) -> Callable:
  """Return a sampler of times, or a coupling, at a share of training.

  A curriculum has a method `at(progress)` and needs a progress, a scalar in
  [0, 1]; any other argument is returned unchanged.

  Example:
    >>> at(laws.Uniform(), None)
    Uniform(t_min=0.0, t_max=1.0)
  """
  stage = getattr(sampler, "at", None)
  if stage is None:
    return sampler
  if progress is None:
    raise ValueError(
      f"{type(sampler).__name__} changes during training: give `progress`, or "
      "a choice without a curriculum"
    )
  return stage(progress)


def draw(
  sampler: Any,
  key: Array,
  data: Array,
  progress: Array | None = None,
  *,
  of: Kind | None = None,
) -> Any:
  """Draw times for the rows of `data`, `paths.as_times`, at a progress.

  The sampler is one of times, pairs, triples or walks, or a curriculum of them;
  `of` says which of these the caller takes, None that it takes any.

  Raises:
    ValueError: The sampler draws another kind.

  Example:
    >>> draw(laws.Constant(t=1.0), jax.random.key(0), jnp.ones((2, 3))).tolist()
    [1.0, 1.0]
  """
  given = at(sampler, progress)(key, len(data))
  if of is not None and _kind(given) != of:
    name = getattr(sampler, "__name__", type(sampler).__name__)
    raise ValueError(
      f"{name} draws {_kind(given)}, and here {of} are drawn: give one of "
      f"`jaxflow.times` that draws {of}, {_EXAMPLES[of]} for instance"
    )
  return jax.tree.map(lambda t: as_times(t, data), given)


def _kind(drawn: Any) -> Kind:
  """Return of which kind drawn times are."""
  if not isinstance(drawn, tuple):
    return "times"
  if len(drawn) == 3:
    return "triples"
  return "pairs" if jnp.ndim(drawn[0]) < 2 else "walks"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdjacentPair:
  """Neighbours on a grid: `t = g(i)`, `s = g(i + 1)`, i uniform.

  Example:
    >>> pair = AdjacentPair(grid=grids.uniform_grid, num_points=5)
    >>> t, s = pair(jax.random.key(0), 3)
    >>> (t - s).tolist()
    [0.25, 0.25, 0.25]
  """

  grid: grids.Grid
  num_points: Count

  def __post_init__(self) -> None:
    if self.num_points < 2:
      raise ValueError(f"num_points={self.num_points}: give 2 or more")

  def __call__(self, key: Array, n: int) -> tuple[Array, Array]:
    """Sample n pairs `(t [n], s [n])`."""
    points = self.grid(self.num_points)
    index = jax.random.randint(key, (n,), 0, self.num_points - 1, jnp.int32)
    return points[index], points[index + 1]
