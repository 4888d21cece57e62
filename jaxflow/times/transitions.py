"""Pairs (t, s) above a transition, and on some rows from the transition down.

On the first k of every m rows t is the transition itself; those rows tie the
trained network to a first stage, which holds below. On the others t follows a
law on the times above. Everywhere s = `curricula.shrunk(t, gap)`.

References:
  Lee et al. 2024 (arXiv:2410.14895), the second stage of truncated consistency
  training.
"""

import dataclasses
from typing import Annotated, Any

import jax.numpy as jnp

from jaxflow import rows
from jaxflow.options import Amount, Positive, PositiveShare, Transition
from jaxflow.times.curricula import shrunk
from jaxflow.times.laws import Law, LogStudent
from jaxflow.types import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransitionPair:
  """t at the transition on boundary rows, above it on the others, s below t.

  Attributes:
    law: Law of t above the transition: one that has a `t_min` starts there,
      times of another that lie below are moved to it.
    transition: Least t, that of boundary rows.
    block: (m, k): of every m rows the first k are boundary rows; see `rows`.
    gap: `1 - s / t` far from the data, where `n(t)` of `curricula.shrunk` is 1.
    scale: How much larger it is near the data.
    slope: How fast that ends with t.

  Example:
    >>> import jax
    >>> pair = TransitionPair(transition=2.0, block=(2, 1), gap=0.5, scale=0.0)
    >>> t, s = pair(jax.random.key(0), 4)
    >>> t.tolist()[::2], s.tolist()[::2], bool((t >= 2).all())
    ([2.0, 2.0], [1.0, 1.0], True)
  """

  law: Law = dataclasses.field(default_factory=LogStudent)
  transition: Annotated[Positive, Transition()] = 1.0
  block: rows.Block = (4, 1)
  gap: PositiveShare = 2.0**-8
  scale: Amount = 8.0
  slope: Amount = 1.0

  def above(self) -> Law:
    """Return the law of the rows above the transition."""
    law: Any = self.law
    if getattr(law, "t_min", self.transition) >= self.transition:
      return law
    return dataclasses.replace(law, t_min=self.transition)

  def __call__(self, key: Array, n: int) -> tuple[Array, Array]:
    """Sample n pairs `(t [n], s [n])`."""
    # A law without ends, or the rounding of one with them, may reach below.
    t = jnp.maximum(self.above()(key, n), self.transition)
    t = jnp.where(rows.is_interval(self.block, n), self.transition, t)
    return t, shrunk(t, self.gap, scale=self.scale, slope=self.slope)
