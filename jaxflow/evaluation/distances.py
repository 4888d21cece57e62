"""Distances between two sets of samples, with no network in between.

Both are zero when the two sets are equal, and neither is zero for two finite
samples of one distribution: compare with the value that real data has against
other real data (the floor), at the same number of samples.
"""

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import pairwise_distances_chunked

from jaxflow.errors import UsageError
from jaxflow.evaluation.points import Points, as_pair, centred

_DIRECTIONS_AT_ONCE = 64
_WORKING_MEMORY_MIB = 256


def sliced_wasserstein(
  a: ArrayLike, b: ArrayLike, *, projections: int = 256, seed: int = 0
) -> float:
  """Computes the sliced Wasserstein-2 distance of two sets of samples.

  SW_2(a, b) = sqrt(mean over directions of W_2(a . direction,
  b . direction)^2), with directions drawn uniformly from the unit sphere and
  W_2 the exact Wasserstein-2 distance of the two projected samples. A shift by
  m in D dimensions gives |m| / sqrt(D) in expectation.

  Args:
    a: samples, [N, ...], flattened to [N, D].
    b: samples of the same shape, [M, ...]; M may differ from N.
    projections: number of directions, at least 1.
    seed: of the directions, so equal seeds use equal directions.

  Returns:
    The distance, in the unit of the samples, >= 0.

  Raises:
    UsageError: the shapes differ, a sample is not finite, or projections < 1.

  References:
    Rabin et al., Wasserstein barycenter and its application to texture mixing,
    2012. Bonneel et al., Sliced and Radon Wasserstein barycenters of measures,
    2015.

  Example:
    >>> round(sliced_wasserstein([[0.0], [1.0]], [[5.0], [6.0]]), 6)
    5.0
  """
  a, b = as_pair("a", a, "b", b)
  if projections < 1:
    raise UsageError(f"projections is {projections}; give at least 1")
  generator = np.random.default_rng(seed)
  directions = generator.standard_normal((projections, a.shape[1]))
  directions /= np.linalg.norm(directions, axis=1, keepdims=True)
  total = 0.0
  for start in range(0, projections, _DIRECTIONS_AT_ONCE):
    some = directions[start : start + _DIRECTIONS_AT_ONCE]
    total += _squared_wasserstein(some @ a.T, some @ b.T).sum()
  return float(np.sqrt(total / projections))


def energy_distance(a: ArrayLike, b: ArrayLike) -> float:
  """Computes the energy distance of two sets of samples.

  2 E|x - y| - E|x - x'| - E|y - y'| with x, x' from a and y, y' from b. This
  is the V-statistic: the expectations run over all pairs, a point with itself
  included. So it is never negative, is zero only for equal sets, and gives
  E|x - x'| (1/N + 1/M) in expectation for two samples of one distribution. No
  square root is taken. Distances carry a rounding error of about 1e-8 times the
  size of the points.

  Args:
    a: samples, [N, ...], flattened to [N, D].
    b: samples of the same shape, [M, ...]; M may differ from N.

  Returns:
    The distance, in the unit of the samples, >= 0.

  Raises:
    UsageError: the shapes differ or a sample is not finite.

  References:
    Szekely and Rizzo, Energy statistics: a class of statistics based on
    distances, 2013, equation 6.1.

  Example:
    >>> energy_distance([[0.0, 0.0]], [[3.0, 4.0]])
    10.0
  """
  a, b = centred(*as_pair("a", a, "b", b))
  between = _mean_distance(a, b)
  within_a, within_b = _mean_distance(a, a), _mean_distance(b, b)
  # Rounding alone can bring the difference of equal sets below zero.
  return max(0.0, 2 * between - within_a - within_b)


def _squared_wasserstein(a: Points, b: Points) -> Points:
  """Integrates the squared difference of the quantile functions of each row.

  Args:
    a: numbers of each projection, [P, N].
    b: numbers of each projection, [P, M].

  Returns:
    W_2^2 of every row, [P].
  """
  num_a, num_b = a.shape[1], b.shape[1]
  # Both quantile functions are constant between neighbouring levels, which are
  # counted in units of 1 / (num_a num_b) to stay exact.
  levels = np.union1d(
    np.arange(num_a + 1) * num_b, np.arange(num_b + 1) * num_a
  )
  start, mass = levels[:-1], np.diff(levels) / (num_a * num_b)
  quantile_a = np.sort(a, axis=1)[:, start // num_b]
  quantile_b = np.sort(b, axis=1)[:, start // num_a]
  return np.square(quantile_a - quantile_b) @ mass


def _mean_distance(a: Points, b: Points) -> float:
  """Averages the Euclidean distance over all pairs of [N, D] and [M, D]."""
  rows = pairwise_distances_chunked(
    a,
    b,
    reduce_func=lambda distances, _: distances.sum(axis=1),
    working_memory=_WORKING_MEMORY_MIB,
  )
  return float(sum(row.sum() for row in rows)) / (len(a) * len(b))
