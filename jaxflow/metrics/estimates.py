"""Numbers with standard errors over the samples they were computed from.

A statistic T of two sets of samples changes, to first order, by the mean of an
influence over each of them (the infinitesimal jackknife). So

  Var T = Var influence(x) / N + Var influence(y) / M.                    (1)

Where two samples have one law their distance is all noise, the influences are
noise too, and (1) is an overestimate: by sqrt(2) for a squared distance that is
quadratic in the difference of the two laws.

References:
  Efron, The jackknife, the bootstrap and other resampling plans, 1982, chapters
  5 and 6.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
  """A number computed from samples.

  Attributes:
    value: the number.
    error: its standard error over other samples of the same laws, None where
      there is no telling.
    degrees: degrees of freedom of the error, None where it is known well.
    num: how many of the samples that are judged it is of, None for all.

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
    """The central 95 % interval, by Student's law where degrees are given."""
    if self.error is None:
      return -math.inf, math.inf
    reach = 1.96
    if self.degrees is not None:
      from scipy import special

      reach = float(special.stdtrit(self.degrees, 0.975))
    return self.value - reach * self.error, self.value + reach * self.error


def mean_of(values: ArrayLike) -> Estimate:
  """Average independent numbers.

  Args:
    values: one for each sample, [N].

  Returns:
    Their mean and its standard error; None for a single one.

  Example:
    >>> mean_of([1.0, 3.0])
    Estimate(value=2.0, error=1.0, degrees=None)
  """
  array = np.asarray(values, np.float64)
  return jackknife(float(array.mean()), array)


def jackknife(value: float, *influences: ArrayLike) -> Estimate:
  """Put the error of eq. (1) beside a number.

  Args:
    value: the number.
    *influences: of the samples of each set, [N]; a constant may be missing.

  Returns:
    The number with its error, None where a set has fewer than two samples.

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
  """Take the root of a squared distance: error / (2 root).

  Example:
    >>> square_root(Estimate(value=4.0, error=0.4))
    Estimate(value=2.0, error=0.1, degrees=None)
  """
  value = math.sqrt(max(0.0, squared.value))
  if squared.error is None:
    return Estimate(value=value, error=None)
  return Estimate(value=value, error=squared.error / (2 * value or 1.0))


def bootstrap(
  statistic: Callable[[NDArray[np.intp]], float],
  num: int,
  *,
  replicates: int = 200,
  seed: int = 0,
) -> float:
  """Compute a standard error by drawing the samples anew from themselves.

  Args:
    statistic: from how often each sample was drawn, [N] with sum N.
    num: N.
    replicates: how often.
    seed: of the draws.

  Returns:
    The deviation of the statistic over the replicates.

  References:
    Efron, Bootstrap methods: another look at the jackknife, 1979.

  Example:
    >>> values = np.arange(100.0)
    >>> error = bootstrap(lambda times: times @ values / 100, 100)
    >>> 2.5 < error < 3.3  # The deviation 28.87 over the root of 100.
    True
  """
  generator = np.random.default_rng(seed)
  values = [
    statistic(np.bincount(generator.integers(num, size=num), minlength=num))
    for _ in range(replicates)
  ]
  return float(np.std(values, ddof=1))


def random_blocks(
  generator: np.random.Generator, num: int, blocks: int
) -> NDArray[np.intp]:
  """Split samples at random into disjoint blocks of one size.

  Args:
    generator: the source of randomness.
    num: how many samples, at least as many as blocks.
    blocks: how many blocks.

  Returns:
    Which samples, [blocks, num // blocks]; what is left over is in none.

  Example:
    >>> random_blocks(np.random.default_rng(0), 7, 2).shape
    (2, 3)
  """
  size = num // blocks
  return generator.permutation(num)[: size * blocks].reshape(blocks, size)
