"""Maximum mean discrepancies (MMD) of two distributions.

  MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)                           (1)

with independent x, x' of one distribution and y, y' of the other. Averages over
pairs of different samples (a U-statistic) are unbiased, so the estimate may be
negative for nearly equal distributions.

References:
  Gretton et al., A kernel two-sample test, JMLR 2012, lemma 6 for (1).
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from jaxflow.errors import UsageError
from jaxflow.metrics.estimates import (
  Estimate,
  jackknife,
  mean_of,
  random_blocks,
)
from jaxflow.metrics.points import Points, as_pair, centred, distance_chunks

_LARGEST_BLOCK = 1000
_MEDIAN_ROWS = 500


def kernel_distance(
  a: ArrayLike, b: ArrayLike, *, blocks: int | None = None, seed: int = 0
) -> Estimate:
  """Compute the kernel Inception distance (KID) of two sets of features.

  Eq. (1) with k(x, y) = (x . y / D + 1)^3, averaged over random disjoint blocks
  of both sets. The blocks are independent, which gives the standard error.

  Args:
    a: features, [N, ...], flattened to [N, D].
    b: features of the same shape, [M, ...]; M may differ from N.
    blocks: number of blocks; default: 10, or as many as keep blocks of the
      smaller set at 1000 rows or fewer. No block has more than 1000 rows.
    seed: seed of the blocks.

  Returns:
    The mean over the blocks, unbiased.

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
  generator = np.random.default_rng(seed)
  parts = [
    random_blocks(generator, len(points), blocks)[:, :_LARGEST_BLOCK]
    for points in (a, b)
  ]
  values = [
    _unbiased(a[rows_a], b[rows_b])
    for rows_a, rows_b in zip(*parts, strict=True)
  ]
  found = mean_of(values)
  return Estimate(value=found.value, error=found.error, degrees=blocks - 1)


def gaussian_mmd(
  a: ArrayLike, b: ArrayLike, *, bandwidth: float | None = None
) -> Estimate:
  """Compute eq. (1) with k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2)).

  The influence of a sample is twice the difference of its mean kernels with its
  own set and with the other set.

  Args:
    a: samples, [N, ...], flattened to [N, D], N >= 2.
    b: the reference, samples of the same shape, [M, ...], M >= 2.
    bandwidth: positive, in the unit of the samples; default: the median
      distance between at most 500 samples of the reference.

  Returns:
    The squared discrepancy, unbiased.

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
  a, b = centred(*as_pair("a", a, "b", b))
  if min(len(a), len(b)) < 2:
    raise UsageError(
      f"sets of {len(a)} and {len(b)} samples; give at least 2 of each"
    )
  if bandwidth is None:
    bandwidth = _median_distance(b)
  if not bandwidth > 0:
    raise UsageError(
      f"bandwidth is {bandwidth}; give a positive one, or a reference whose "
      "samples differ"
    )
  from_a, from_b = _mean_kernels(a, b, bandwidth)
  within_a, within_b = (
    # Without the kernel of a point with itself.
    (_mean_kernels(x, x, bandwidth)[0] * len(x) - 1) / (len(x) - 1)
    for x in (a, b)
  )
  value = within_a.mean() + within_b.mean() - 2 * from_a.mean()
  return jackknife(
    float(value), 2 * (within_a - from_a), 2 * (within_b - from_b)
  )


def _unbiased(a: Points, b: Points) -> float:
  """Compute eq. (1) with the polynomial kernel for [n, D] and [m, D]."""
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
  a: Points, b: Points, bandwidth: float
) -> tuple[Points, Points]:
  """Average the Gaussian kernel of each point with all others: [N], [M]."""
  rows, columns = np.zeros(len(a)), np.zeros(len(b))
  for some, distances in distance_chunks(a, b):
    values = np.exp(-0.5 * np.square(distances / bandwidth))
    rows[some] = values.mean(axis=1)
    columns += values.sum(axis=0)
  return rows, columns / len(a)


def _median_distance(points: Points) -> float:
  """Return the median distance between different points of [N, D]."""
  from scipy.spatial.distance import pdist

  num = min(len(points), _MEDIAN_ROWS)
  return float(np.median(pdist(points[np.arange(num) * len(points) // num])))
