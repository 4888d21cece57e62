"""Where a step along the velocity ends: the ratio alpha of a middle time.

The middle time of [s, t] is `l = t - alpha (t - s)`: alpha = 1 steps to s, and
alpha = 0 does not step.

References:
  alpha-Flow (arXiv:2510.20771, official code) for the sigmoid, SoFlow
  (arXiv:2512.15657, official code) for the exponential.
"""

import dataclasses
from typing import Annotated, Protocol

import jax
import jax.numpy as jnp

from jaxflow.options import Above, BelowOne, Positive, PositiveShare, Share
from jaxflow.types import Array


class Ratio(Protocol):
  """The ratio alpha of pairs of times, at a share of training."""

  def __call__(
    self, progress: Array | None, t: Array, s: Array, /
  ) -> Array | float:
    """Return alpha in [0, 1]: one number, or `[B]` above 0 for t, s `[B]`."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConstantRatio:
  """The same ratio during all of training.

  Example:
    >>> ConstantRatio(alpha=0.25)(None, jnp.ones(1), jnp.zeros(1))
    0.25
  """

  alpha: Share = 1.0

  def __call__(self, progress: Array | None, t: Array, s: Array) -> float:
    """Return alpha."""
    del progress, t, s
    return self.alpha


@dataclasses.dataclass(frozen=True, kw_only=True)
class SigmoidRatio:
  """A ratio that falls from 1 to 0 as a sigmoid of progress.

    alpha = 1 - sigmoid(gamma (progress - (start + end) / 2) / (end - start))

  It is 0 where it is below `clamp`, and 1 where it is above 1 - clamp.

  Example:
    >>> ratio, one = SigmoidRatio(), jnp.ones(1)
    >>> [float(ratio(jnp.array(x), one, 0 * one)) for x in (0.0, 0.5, 1.0)]
    [1.0, 0.5, 0.0]
  """

  start: Share = 0.0
  end: Annotated[PositiveShare, Above("start")] = 1.0
  gamma: Positive = 25.0
  clamp: BelowOne = 0.005

  def __call__(self, progress: Array | None, t: Array, s: Array) -> Array:
    """Return alpha, a scalar of the type of t."""
    del s
    middle = (_given(self, progress) - (self.start + self.end) / 2).astype(
      t.dtype
    )
    alpha = jax.nn.sigmoid(-self.gamma * middle / (self.end - self.start))
    alpha = jnp.where(alpha < self.clamp, 0, alpha)
    return jnp.where(alpha > 1 - self.clamp, 1, alpha)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExponentialRatio:
  """A ratio that falls exponentially, with a least step.

    alpha = r0 (r1 / r0)^progress,   at least gap / (t - s), at most 1

  Attributes:
    start: r0.
    end: r1.
    gap: The least t - l, in units of t.

  Example:
    >>> ratio = ExponentialRatio(start=0.1, end=0.001, gap=0.02)
    >>> t = jnp.array([1.0, 0.1])
    >>> [round(float(x), 6) for x in ratio(jnp.array(0.5), t, 0 * t)]
    [0.02, 0.2]
  """

  start: PositiveShare = 0.1
  end: PositiveShare = 0.002
  gap: Positive = 1e-4

  def __call__(self, progress: Array | None, t: Array, s: Array) -> Array:
    """Return alpha, `[B]`."""
    ratio = self.start * (self.end / self.start) ** _given(self, progress)
    length = jnp.where(t > s, t - s, 1)
    least = jnp.where(t > s, self.gap / length, 1)
    return jnp.clip(jnp.maximum(ratio.astype(t.dtype), least), 0, 1)


def _given(ratio: Ratio, progress: Array | None) -> Array:
  if progress is None:
    raise ValueError(
      f"{type(ratio).__name__} changes during training: give `progress`, or "
      "ConstantRatio"
    )
  return progress
