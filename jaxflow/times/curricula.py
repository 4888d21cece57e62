"""Curricula: pairs of neighbouring times that move closer during training.

A curriculum is a sampler of pairs with a method `at(progress)`, which returns
the sampler at a share of training in [0, 1]; see `times.at`. Numbers of grid
points are traced, so a finer grid needs no recompilation.

On the grid `g(i) = Karras(i / (N - 1))`, i = 0..N-1, from noise to data, a pair
is `t = g(i)`, `s = g(i + 1)`:

  adaptive:  N = ceil(sqrt(p ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1       (1)
             i uniform
  doubling:  N = min(s0 2^floor(k / K'), s1) + 1,   k = p K,            (2)
             K' = floor(K / (log2 floor(s1 / s0) + 1))
             P(i) ~ E(g(i)) - E(g(i + 1)),                              (3)
             E(t) = erf((ln t - mean) / (sqrt2 std))

and without a grid

  shrinking: s = max(t (1 - q^-(stage + 1) n(t)), 0),                   (4)
             n(t) = 1 + scale sigmoid(-slope t),
             stage = floor(p num_stages)

References:
  Song et al. 2023 (arXiv:2303.01469), appendix C, for (1); Song, Dhariwal 2023
  (arXiv:2310.14189), section 3.4, 3.5 for (2), (3); Geng et al. 2024
  (arXiv:2406.14548), section 4 for (4).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxflow.options import (
  Amount,
  AtLeastOne,
  Count,
  End,
  Finite,
  Natural,
  Positive,
)
from jaxflow.times.laws import Karras, Law, LogNormal
from jaxflow.times.pairs import PairSampler
from jaxflow.types import Array


def adaptive_points(progress: Array, *, start: int, end: int) -> Array:
  """Return N of eq. (1), a whole number >= 2 of the type of `progress`.

  `start` is s0, about the first number of points; `end` is s1, one below the
  last.
  """
  square = progress * ((end + 1) ** 2 - start**2) + start**2
  return jnp.maximum(jnp.ceil(jnp.sqrt(square) - 1), 1) + 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Neighbors:
  """Uniform neighbours on a Karras grid with a traced number of points."""

  num_points: Array
  levels: Karras

  def index(self, draws: Array) -> Array:
    """Map uniform draws `[n]` to indices in 0..N-2, as floats."""
    return jnp.floor(draws * (self.num_points - 1))

  def transform(self, draws: Array) -> tuple[Array, Array]:
    """Map uniform draws `[n]` to `(t [n], s [n])`."""
    last = self.num_points - 1
    # Rounding may move a draw near 0 or 1 past the ends.
    i = jnp.clip(self.index(draws), 0, last - 1)
    t, s = (self.levels.transform(x / last) for x in (i, i + 1))
    return t, s

  def __call__(self, key: Array, n: int) -> tuple[Array, Array]:
    """Sample n pairs `(t [n], s [n])`."""
    return self.transform(self.levels.draw(key, n))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogNormalNeighbors(Neighbors):
  """Neighbours whose index follows a discretised log-normal law, eq. (3).

  The sum of (3) over i telescopes, so its inverse is that of a log-normal law
  between the ends of the grid, rounded to the grid.
  """

  mean: float = -1.1
  std: float = 2.0

  def index(self, draws: Array) -> Array:
    """Map uniform draws `[n]` to indices in 0..N-2, as floats."""
    scale = math.sqrt(2) * self.std
    ends = self.levels.t_max, self.levels.t_min
    high, low = (math.erf((math.log(t) - self.mean) / scale) for t in ends)
    z = jax.lax.erf_inv(high - draws * (high - low))
    position = self.levels.inverse(jnp.exp(self.mean + scale * z))
    return jnp.floor(position * (self.num_points - 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptivePair:
  """Uniform neighbours on a grid that grows by eq. (1): consistency training.

  Example:
    >>> AdaptivePair().at(jnp.array(0.0)).num_points.item()
    2.0
  """

  start: Count = 2
  end: Count = 150
  t_min: Amount = 0.002
  t_max: End = 80.0
  rho: Positive = 7.0

  def at(self, progress: Array) -> PairSampler:
    """Return the sampler of pairs at a share of training."""
    return Neighbors(
      num_points=adaptive_points(progress, start=self.start, end=self.end),
      levels=Karras(t_min=self.t_min, t_max=self.t_max, rho=self.rho),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoublingPair:
  """Log-normal neighbours on a grid that doubles by eq. (2): improved training.

  `steps` is K; 0 does not round the length of a stage down to whole steps.

  Example:
    >>> DoublingPair().at(jnp.array(0.125)).num_points.item()
    21.0
  """

  start: Count = 10
  end: Count = 1280
  mean: Finite = -1.1
  std: Positive = 2.0
  t_min: Amount = 0.002
  t_max: End = 80.0
  rho: Positive = 7.0
  steps: Natural = 0

  def __post_init__(self) -> None:
    if self.t_min <= 0:
      raise ValueError(
        f"t_min={self.t_min}: a log-normal law needs a time above 0; choose a "
        "path that ends before, variance_exploding for instance"
      )
    if not 1 <= self.start <= self.end:
      raise ValueError(
        f"start={self.start}, end={self.end}: give 1 <= start <= end"
      )
    if self.steps < 0 or self.steps % 1:
      raise ValueError(f"steps={self.steps}: give a whole number, 0 or more")

  def at(self, progress: Array) -> PairSampler:
    """Return the sampler of pairs at a share of training."""
    stages = math.log2(self.end // self.start) + 1
    doublings = jnp.floor(progress * stages)
    if self.steps:
      step = jnp.round(progress * self.steps)
      doublings = step // max(self.steps // stages, 1)
    return LogNormalNeighbors(
      num_points=jnp.minimum(self.start * 2.0**doublings, self.end) + 1,
      levels=Karras(t_min=self.t_min, t_max=self.t_max, rho=self.rho),
      mean=self.mean,
      std=self.std,
    )


def shrunk(
  t: Array, decay: Array | float, *, scale: float, slope: float
) -> Array:
  """Return s of eq. (4), with `decay = q^-(stage + 1)`.

  Example:
    >>> shrunk(jnp.array([2.0, 4.0]), 0.25, scale=0.0, slope=1.0).tolist()
    [1.5, 3.0]
  """
  n = 1 + scale * jax.nn.sigmoid(-slope * t)
  return jnp.maximum(t * (1 - decay * n), 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ratio:
  """t from a law, s as in eq. (4) with `decay = q^-(stage + 1)`."""

  law: Law
  decay: Array
  scale: float = 8.0
  slope: float = 1.0

  def transform(self, draws: Array) -> tuple[Array, Array]:
    """Map draws `[n]` of t's law to `(t [n], s [n])`."""
    t = self.law.transform(draws)
    return t, shrunk(t, self.decay, scale=self.scale, slope=self.slope)

  def __call__(self, key: Array, n: int) -> tuple[Array, Array]:
    """Sample n pairs `(t [n], s [n])`."""
    return self.transform(self.law.draw(key, n))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShrinkingPair:
  """A gap t - s that shrinks by stages, eq. (4): easy consistency tuning.

  `scale=0` makes the gap the same share of t at every t.

  Example:
    >>> round(ShrinkingPair().at(jnp.array(0.5)).decay.item(), 6)   # 2^-5
    0.03125
  """

  law: Law = dataclasses.field(
    default_factory=lambda: LogNormal(mean=-1.1, std=2.0)
  )
  q: AtLeastOne = 2.0
  num_stages: Count = 8
  scale: Amount = 8.0
  slope: Amount = 1.0

  def at(self, progress: Array) -> PairSampler:
    """Return the sampler of pairs at a share of training."""
    stage = jnp.floor(progress * self.num_stages)
    stage = jnp.minimum(stage, self.num_stages - 1)
    return Ratio(
      law=self.law,
      decay=self.q ** -(stage + 1),
      scale=self.scale,
      slope=self.slope,
    )
