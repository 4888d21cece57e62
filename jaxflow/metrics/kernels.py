"""Distances by the mean of a kernel k over pairs of samples.

  MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)                           (1)

with independent x, x' of one distribution and y, y' of the other. Averages over
pairs of different samples (a U-statistic) are unbiased, so the estimate may be
negative for nearly equal distributions.

References:
  Gretton et al., A kernel two-sample test, JMLR 2012, lemma 6 for (1).
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from jaxflow.errors import UsageError
from jaxflow.metrics.estimates import Estimate, jackknife, mean_of, over_blocks
from jaxflow.metrics.points import (
  Points,
  as_pair,
  centred,
  distance_chunks,
  evenly,
)

_LARGEST_BLOCK = 1000
_MEDIAN_ROWS = 500


def energy_distance(a: ArrayLike, b: ArrayLike) -> Estimate:
  """Compute the energy distance, in the unit of the samples.

  Eq. (1) with k(x, y) = -|x - y|, without a square root. This is the
  V-statistic: the expectations include the pairs of a point with itself. So it
  is never negative, and zero only for equal sets. Its expectation for two
  samples of one distribution, [N, ...] and [M, ...], is E|x - x'| (1/N + 1/M).
  The rounding error is about 1e-8 times the norm of the largest point.

  Raises:
    UsageError: the shapes differ or a sample is not finite.

  References:
    Szekely and Rizzo, Energy statistics: a class of statistics based on
    distances, 2013, equation 6.1.

  Example:
    >>> energy_distance([[0.0, 0.0]], [[3.0, 4.0]]).value
    10.0
  """
  a, b = centred(*as_pair("a", a, "b", b))
  across_a, across_b = _mean_kernels(a, b, np.asarray)
  within_a, within_b = (_mean_kernels(x, x, np.asarray)[0] for x in (a, b))
  value = 2 * across_a.mean() - within_a.mean() - within_b.mean()
  # Rounding can make the difference of equal sets negative.
  return jackknife(
    max(0.0, float(value)), 2 * (across_a - within_a), 2 * (across_b - within_b)
  )


def gaussian_mmd(
  a: ArrayLike, b: ArrayLike, *, bandwidth: float | None = None
) -> Estimate:
  """Compute eq. (1) with k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2)).

  The estimate is unbiased. The influence of a sample is twice the difference of
  its mean kernels with its own set and with the other set.

  Args:
    a: samples, [N, ...], flattened to [N, D], N >= 2.
    b: the reference, samples of the same shape, [M, ...], M >= 2.
    bandwidth: positive, in the unit of the samples; default: the median
      distance between at most 500 samples of the reference.

  Raises:
    UsageError: the shapes differ, a sample is not finite, a set has fewer than
      two, or the bandwidth is not positive.

  References:
    Gretton et al. 2012, eq. 3 and section 8 for the median.

  Example:
    >>> found = gaussian_mmd([[0.0]] * 2, [[1.0]] * 2, bandwidth=1.0)
    >>> round(found.value, 4)  # 2 - 2 exp(-1 / 2)
    0.7869
  """
  from scipy.spatial.distance import pdist

  a, b = centred(*as_pair("a", a, "b", b))
  if min(len(a), len(b)) < 2:
    raise UsageError(
      f"sets of {len(a)} and {len(b)} samples; give at least 2 of each"
    )
  if bandwidth is None:
    bandwidth = float(np.median(pdist(evenly(b, _MEDIAN_ROWS))))
    if not bandwidth:
      raise UsageError(
        "bandwidth is 0, the median distance in the reference, whose samples "
        "are mostly equal; take another metric"
      )
  if not bandwidth > 0:
    raise UsageError(f"bandwidth={bandwidth}: give a positive one")

  def kernel(distances: Points) -> Points:
    return np.exp(-0.5 * np.square(distances / bandwidth))

  across_a, across_b = _mean_kernels(a, b, kernel)
  within_a, within_b = (
    # Without the kernel of a point with itself.
    (_mean_kernels(x, x, kernel)[0] * len(x) - 1) / (len(x) - 1)
    for x in (a, b)
  )
  value = within_a.mean() + within_b.mean() - 2 * across_a.mean()
  return jackknife(
    float(value), 2 * (within_a - across_a), 2 * (within_b - across_b)
  )


def kernel_distance(
  a: ArrayLike, b: ArrayLike, *, blocks: int | None = None, seed: int = 0
) -> Estimate:
  """Compute the kernel Inception distance (KID) of two sets of features.

  Eq. (1) with k(x, y) = (x . y / D + 1)^3, unbiased, averaged over random
  disjoint blocks of both sets. These are independent, which gives the error.

  Args:
    a: features, [N, ...], flattened to [N, D].
    b: features of the same shape, [M, ...].
    blocks: number of blocks; default: 10, or as many as keep blocks of the
      smaller set at 1000 rows or fewer. No block has more than 1000 rows.
    seed: seed of the blocks.

  Raises:
    UsageError: the shapes differ, a number is not finite, or there are fewer
      than two rows a block.

  References:
    Binkowski et al., Demystifying MMD GANs, 2018, arXiv:1801.01401, section 4.

  Example:
    >>> draw = np.random.default_rng(0).standard_normal
    >>> low, high = kernel_distance(draw((400, 8)), draw((300, 8))).interval
    >>> low < 0 < high
    True
  """
  a, b = as_pair("a", a, "b", b)
  smaller = min(len(a), len(b))
  if blocks is None:
    blocks = max(10, math.ceil(smaller / _LARGEST_BLOCK))
  if blocks < 2 or smaller < 2 * blocks:
    raise UsageError(
      f"{smaller} samples in {blocks} blocks; give at least 2 blocks of 2"
    )
  values = over_blocks(
    _polynomial_mmd, a, b, blocks=blocks, seed=seed, most=_LARGEST_BLOCK
  )
  return dataclasses.replace(mean_of(values), degrees=blocks - 1)


def _polynomial_mmd(a: Points, b: Points) -> float:
  """Compute eq. (1) with the kernel of KID for [n, D] and [m, D], unbiased."""
  size = a.shape[1]

  def kernel(x: Points, y: Points) -> Points:
    base = x @ y.T / size + 1
    # Much faster than base**3.
    return base * base * base

  def within(x: Points) -> float:
    table = kernel(x, x)
    return (table.sum() - np.trace(table)) / (len(x) * (len(x) - 1))

  return float(within(a) + within(b) - 2 * kernel(a, b).mean())


def _mean_kernels(
  a: Points, b: Points, kernel: Callable[[Points], Points]
) -> tuple[Points, Points]:
  """Average a function of distances between each point and all others."""
  rows, columns = np.zeros(len(a)), np.zeros(len(b))
  for some, distances in distance_chunks(a, b):
    values = kernel(distances)
    rows[some] = values.mean(axis=1)
    columns += values.sum(axis=0)
  return rows, columns / len(a)
