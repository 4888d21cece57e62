"""Distances between two sets of samples, without a network.

Both are zero for equal sets, but not for two finite samples of one
distribution. So compare with the floor: the distance between two sets of real
samples of the same sizes.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.errors import UsageError
from jaxflow.metrics.estimates import Estimate, jackknife, square_root
from jaxflow.metrics.points import Points, as_pair, centred, distance_chunks

_DIRECTIONS_AT_ONCE = 64


def sliced_wasserstein(
  a: ArrayLike, b: ArrayLike, *, projections: int = 256, seed: int = 0
) -> Estimate:
  """Compute the sliced Wasserstein-2 distance of two sets of samples.

  SW_2(a, b) = sqrt(mean over directions of W_2(a . direction,
  b . direction)^2), with directions drawn uniformly from the unit sphere and
  W_2 the exact Wasserstein-2 distance of the two projected samples. A shift by
  m in D dimensions gives |m| / sqrt(D) in expectation.

  The influence of a sample on W_2^2 is the Kantorovich potential there. In one
  dimension it is the integral of 2 (x - T(x)), with T the transport map. The
  directions are held fixed.

  Args:
    a: samples, [N, ...], flattened to [N, D].
    b: samples of the same shape, [M, ...]; M may differ from N.
    projections: number of directions, at least 1.
    seed: seed of the directions.

  Returns:
    The distance, in the unit of the samples, >= 0.

  Raises:
    UsageError: the shapes differ, a sample is not finite, or projections < 1.

  References:
    Rabin et al., Wasserstein barycenter and its application to texture mixing,
    2012. Bonneel et al., Sliced and Radon Wasserstein barycenters of measures,
    2015. Santambrogio, Optimal transport for applied mathematicians, 2015,
    proposition 7.17, for the potential.

  Example:
    >>> found = sliced_wasserstein([[0.0], [1.0]], [[5.0], [6.0]])
    >>> round(found.value, 6)
    5.0
  """
  a, b = as_pair("a", a, "b", b)
  if projections < 1:
    raise UsageError(f"projections is {projections}; give at least 1")
  generator = np.random.default_rng(seed)
  directions = generator.standard_normal((projections, a.shape[1]))
  directions /= np.linalg.norm(directions, axis=1, keepdims=True)
  total, of_a, of_b = 0.0, np.zeros(len(a)), np.zeros(len(b))
  for start in range(0, projections, _DIRECTIONS_AT_ONCE):
    some = directions[start : start + _DIRECTIONS_AT_ONCE]
    squared, potential_a, potential_b = _transport(some @ a.T, some @ b.T)
    total += squared.sum()
    of_a += potential_a.sum(axis=0)
    of_b += potential_b.sum(axis=0)
  return square_root(
    jackknife(
      float(total / projections), of_a / projections, of_b / projections
    )
  )


def energy_distance(a: ArrayLike, b: ArrayLike) -> Estimate:
  """Compute the energy distance of two sets of samples.

  2 E|x - y| - E|x - x'| - E|y - y'| with x, x' from a and y, y' from b, without
  a square root. This is the V-statistic: the expectations include the pairs of
  a point with itself. So it is never negative, and zero only for equal sets.
  Its expectation for two samples of one distribution is
  E|x - x'| (1/N + 1/M). The rounding error is about 1e-8 times the points.

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
    >>> energy_distance([[0.0, 0.0]], [[3.0, 4.0]]).value
    10.0
  """
  a, b = centred(*as_pair("a", a, "b", b))
  from_a, from_b = _mean_distances(a, b)
  within_a, within_b = _mean_distances(a, a)[0], _mean_distances(b, b)[0]
  value = 2 * from_a.mean() - within_a.mean() - within_b.mean()
  # Rounding can make the difference of equal sets negative.
  return jackknife(
    max(0.0, float(value)), 2 * (from_a - within_a), 2 * (from_b - within_b)
  )


def _transport(a: Points, b: Points) -> tuple[Points, Points, Points]:
  """Solve optimal transport between each row of a and that of b.

  Args:
    a: numbers of each projection, [P, N].
    b: numbers of each projection, [P, M].

  Returns:
    W_2^2 of every row, [P], and the potentials at the numbers, [P, N], [P, M].
  """
  num_a, num_b = a.shape[1], b.shape[1]
  order_a, order_b = np.argsort(a, axis=1), np.argsort(b, axis=1)
  a, b = np.take_along_axis(a, order_a, 1), np.take_along_axis(b, order_b, 1)
  # Both quantile functions are constant between neighbouring levels, which are
  # counted in units of 1 / (num_a num_b) to stay exact.
  ends_a, ends_b = np.arange(num_a + 1) * num_b, np.arange(num_b + 1) * num_a
  levels = np.union1d(ends_a, ends_b)
  start, mass = levels[:-1], np.diff(levels) / (num_a * num_b)
  quantile_a, quantile_b = a[:, start // num_b], b[:, start // num_a]
  first_a = np.searchsorted(start, ends_a[:-1])
  first_b = np.searchsorted(start, ends_b[:-1])
  # The mean destination of each number.
  goal_a = np.add.reduceat(quantile_b * mass, first_a, axis=1) * num_a
  goal_b = np.add.reduceat(quantile_a * mass, first_b, axis=1) * num_b
  squared = np.square(quantile_a - quantile_b) @ mass
  return squared, _potential(a, goal_a, order_a), _potential(b, goal_b, order_b)


def _potential(x: Points, goal: Points, order: NDArray[np.intp]) -> Points:
  """Integrate 2 (x - goal) over sorted x [P, N], and undo the sorting."""
  apart = x - goal
  slopes = apart[:, 1:] + apart[:, :-1]
  result = np.zeros_like(x)
  integral = np.cumsum(np.diff(x, axis=1) * slopes, axis=1)
  np.put_along_axis(result, order[:, 1:], integral, axis=1)
  # A potential is defined up to a constant; influences have mean zero.
  return result - result.mean(axis=1, keepdims=True)


def _mean_distances(a: Points, b: Points) -> tuple[Points, Points]:
  """Average the distances of each point to all others: [N] and [M]."""
  rows, columns = np.zeros(len(a)), np.zeros(len(b))
  for some, distances in distance_chunks(a, b):
    rows[some] = distances.mean(axis=1)
    columns += distances.sum(axis=0)
  return rows, columns / len(a)
