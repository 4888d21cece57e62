"""Wasserstein distances between two sets of samples, without a network.

They are zero for equal sets, but not for two finite samples of one
distribution. So compare with the floor: the distance between two sets of real
samples of the same sizes.

The influence of a sample on W_2^2 is the Kantorovich potential there.
"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.errors import UsageError
from jaxflow.metrics.estimates import Estimate, jackknife, square_root
from jaxflow.metrics.points import (
  Points,
  as_pair,
  centred,
  distance_chunks,
  evenly,
)

_DIRECTIONS_AT_ONCE = 64


def sliced_wasserstein(
  a: ArrayLike, b: ArrayLike, *, projections: int = 256, seed: int = 0
) -> Estimate:
  """Compute the sliced Wasserstein-2 distance, in the unit of the samples.

  SW_2(a, b) = sqrt(mean over directions of W_2(a . direction,
  b . direction)^2), with directions drawn uniformly from the unit sphere and
  W_2 the exact Wasserstein-2 distance of the two projected samples. A shift by
  m in D dimensions gives |m| / sqrt(D) in expectation.

  In one dimension the potential is the integral of 2 (x - T(x)), with T the
  transport map. The error holds the directions fixed.

  Args:
    a: samples, [N, ...], flattened to [N, D].
    b: samples of the same shape, [M, ...].
    projections: number of directions, at least 1.
    seed: seed of the directions.

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
  mean = float(total / projections)
  return square_root(jackknife(mean, of_a / projections, of_b / projections))


def wasserstein(a: ArrayLike, b: ArrayLike, *, num: int = 1000) -> Estimate:
  """Compute the exact Wasserstein-2 distance, in the unit of the points.

  W_2^2 = min over assignments of mean |x_i - y_assigned(i)|^2, for equally many
  points of both sets. The bias falls only as num^(-1/D) in D > 4 dimensions, so
  use it in few dimensions and beside the distance between two real sets.

  The standard error comes from the dual potentials. These are not unique; the
  mean of the largest and the smallest is taken.

  Args:
    a: points, [N, ...], flattened to [N, D].
    b: points of the same shape, [M, ...].
    num: largest number of points, evenly chosen from each set; 1000 points
      take a second, 2000 about six.

  Raises:
    UsageError: the shapes differ, a point is not finite, or num < 1.

  References:
    Crouse, On implementing 2D rectangular assignment algorithms, 2016, for the
    algorithm of scipy. Fournier and Guillin, On the rate of convergence in
    Wasserstein distance of the empirical measure, 2015, theorem 1.

  Example:
    >>> wasserstein([[0.0, 0.0], [1.0, 0.0]], [[1.0, 3.0], [0.0, 3.0]]).value
    3.0
  """
  from scipy.optimize import linear_sum_assignment

  a, b = centred(*as_pair("a", a, "b", b))
  if num < 1:
    raise UsageError(f"num is {num}; give at least 1")
  num = min(len(a), len(b), num)
  a, b = evenly(a, num), evenly(b, num)
  cost = np.concatenate([rows**2 for _, rows in distance_chunks(a, b)])
  _, goal = linear_sum_assignment(cost)
  # Point i goes to point i, once these are sorted; the potentials v of b then
  # obey v_j - v_i <= cost_ij - cost_ii, and those of a are cost_ii - v_i.
  cost = cost[:, goal]
  paid = np.diag(cost)
  limits = cost - paid[:, None]
  of_b = (_highest(limits) - _highest(limits.T)) / 2
  squared = jackknife(float(paid.mean()), paid - of_b, of_b)
  return dataclasses.replace(square_root(squared), num=num)


def _transport(a: Points, b: Points) -> tuple[Points, Points, Points]:
  """Solve optimal transport between each row of a [P, N] and that of b [P, M].

  Return W_2^2 of every row, [P], and the potentials at the numbers, [P, N] and
  [P, M].
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


def _highest(limits: Points) -> Points:
  """Find the highest v <= 0 with v_j - v_i <= limits_ij by shortest paths."""
  v = np.zeros(len(limits))
  enough = 1e-9 * np.abs(limits).max()
  for _ in range(len(limits)):
    nearer = np.minimum(v, (v[:, None] + limits).min(axis=0))
    if (v - nearer).max() <= enough:
      break
    v = nearer
  return v
