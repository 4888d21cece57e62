"""Numbers with standard errors, computed from samples.

To first order, a statistic T of two sets of samples changes by the mean
influence over each set (the infinitesimal jackknife). So

  Var T = Var influence(x) / N + Var influence(y) / M.                    (1)

If both sets have the same distribution, their distance and its influences are
pure noise. Then (1) is too large: the error by sqrt(2), for a squared distance
that is quadratic in the difference of the distributions.

References:
  Efron, The jackknife, the bootstrap and other resampling plans, 1982, chapters
  5 and 6.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.metrics.points import Points


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
  """A number computed from samples.

  Attributes:
    value: the number.
    error: its standard error over samples of the same distributions, or None
      if it cannot be estimated.
    degrees: degrees of freedom of the error, None for very many.
    num: number of generated samples that were used, None for all.

  Example:
    >>> low, high = Estimate(value=1.0, error=0.5).interval
    >>> round(low, 2), round(high, 2)
    (0.02, 1.98)
  """

  value: float
  error: float | None
  degrees: int | None = None
  num: int | None = dataclasses.field(default=None, repr=False)

  @property
  def interval(self) -> tuple[float, float]:
    """The central 95 % interval, of Student's t if degrees are given."""
    if self.error is None:
      return -math.inf, math.inf
    reach = 1.96
    if self.degrees is not None:
      from scipy import special

      reach = float(special.stdtrit(self.degrees, 0.975))
    return self.value - reach * self.error, self.value + reach * self.error


def mean_of(values: ArrayLike) -> Estimate:
  """Return the mean of independent numbers [N], with its standard error."""
  array = np.asarray(values, np.float64)
  return jackknife(float(array.mean()), array)


def jackknife(value: float, *influences: ArrayLike) -> Estimate:
  """Return a number with the error of eq. (1), None for fewer than 2 samples.

  The influences of each set's samples, [N], are known up to a constant.

  Example:
    >>> jackknife(5.0, [1.0, 3.0], [2.0, 2.0])
    Estimate(value=5.0, error=1.0, degrees=None)
  """
  sets = [np.asarray(influence, np.float64) for influence in influences]
  if min(map(len, sets)) < 2:
    return Estimate(value=value, error=None)
  variances = [influence.var(ddof=1) / len(influence) for influence in sets]
  return Estimate(value=value, error=math.sqrt(math.fsum(variances)))


def square_root(squared: Estimate) -> Estimate:
  """Return the root of a squared distance, with error / (2 root)."""
  value = math.sqrt(max(0.0, squared.value))
  if squared.error is None:
    return Estimate(value=value, error=None)
  return Estimate(value=value, error=squared.error / (2 * value or 1.0))


def random_blocks(
  generator: np.random.Generator, num: int, blocks: int
) -> NDArray[np.intp]:
  """Split sample indices at random, [blocks, num // blocks]; omit the rest."""
  size = num // blocks
  return generator.permutation(num)[: size * blocks].reshape(blocks, size)


def over_blocks(
  statistic: Callable[[Points, Points], ArrayLike],
  a: Points,
  b: Points,
  *,
  blocks: int,
  seed: int,
  most: int | None = None,
) -> Points:
  """Compute a statistic [...] of random disjoint blocks, [blocks, ...].

  A block has at most `most` rows of a [N, D] and of b [M, D].
  """
  generator = np.random.default_rng(seed)
  parts = [random_blocks(generator, len(x), blocks)[:, :most] for x in (a, b)]
  return np.array(
    [statistic(a[some], b[others]) for some, others in zip(*parts, strict=True)]
  )
