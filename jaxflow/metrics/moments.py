"""Means and covariances of samples, and the Frechet distance between them.

Moments can be merged over batches and hosts. Every host reduces its own rows in
float64 and merges them into its moments; at the end the hosts merge theirs:

  mean = mean_a + (n_b / n) d,   scatter = S_a + S_b + (n_a n_b / n) d d^T,
  d = mean_b - mean_a,   n = n_a + n_b.                                   (1)

So batches and devices change the result only by float64 rounding. A difference
of squares, or float32, would be too inexact: the Frechet distance is a small
difference of large traces.

For two sets with means m, n and covariances S = K K^T, C = L L^T, and the
singular values L^T K = U s V^T, the distance of their Gaussians is

  F = |m - n|^2 + tr(S + C) - 2 sum s.                                    (2)

Its gradients by m and S are 2 (m - n) and I - T, where T = P P^T with
P = L U s^(-1/2) is the optimal map of the first Gaussian to the second
(T S T = C). So the influence of a sample x of the first set is, up to a
constant,

  2 (m - n) . (x - m) + |x - m|^2 - |P^T (x - m)|^2,                      (3)

and likewise for the second set with P = K V s^(-1/2). If a covariance is
singular, only s > 0 count. F is biased upwards for few samples, so compare at
equal numbers.

References:
  Chan et al. 1979, eq. 2.1, for (1). Dowson and Landau, The Frechet distance
  between multivariate normal distributions, 1982, for (2). Heusel et al. 2017
  (arXiv:1706.08500). Bhatia, Jain, Lim, On the Bures-Wasserstein distance
  between positive definite matrices, 2019 (arXiv:1712.01504), for the map T.
"""

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.errors import UsageError
from jaxflow.metrics.estimates import Estimate
from jaxflow.metrics.points import as_points

Matrix = NDArray[np.float64]

_EPSILON = np.finfo(np.float64).eps


@dataclasses.dataclass(frozen=True)
class Moments:
  """Moments of n samples of D numbers, float64.

  Attributes:
    count: n.
    mean: The mean, [D].
    scatter: Sum of the outer products of the centred samples, [D, D].

  Example:
    >>> found = Moments.of([[1.0]]).merge(Moments.of([[3.0]]))
    >>> found.mean.tolist(), found.covariance.tolist()
    ([2.0], [[2.0]])
  """

  count: int
  mean: Matrix
  scatter: Matrix

  @property
  def covariance(self) -> Matrix:
    """The unbiased covariance of at least two samples, [D, D]."""
    return self.scatter / (self.count - 1)

  @classmethod
  def of(cls, rows: ArrayLike) -> "Moments":
    """Compute the moments of samples [n, ...], flattened to [n, D].

    Raises:
      UsageError: There are no samples.
    """
    array = np.asarray(rows, np.float64)
    if not array.size:
      raise UsageError(f"samples of shape {array.shape}: give at least one")
    array = array.reshape(len(array), -1)
    mean = array.mean(axis=0)
    centred = array - mean
    return cls(len(array), mean, centred.T @ centred)

  def merge(self, other: "Moments") -> "Moments":
    """Return the moments of both sets of samples together, eq. (1)."""
    count, apart = self.count + other.count, other.mean - self.mean
    between = np.outer(apart, apart) * (self.count * other.count / count)
    return Moments(
      count,
      self.mean + apart * (other.count / count),
      self.scatter + other.scatter + between,
    )


def frechet_distance(
  a: Moments,
  b: Moments,
  *,
  rows_a: ArrayLike | None = None,
  rows_b: ArrayLike | None = None,
) -> Estimate:
  """Compute the Frechet distance of the Gaussians with these moments, eq. (2).

  The distance is >= 0, in the squared unit of the samples. Rows [K, D] of a set
  give the variance of (3); without them the set is taken for a Gaussian.

  Raises:
    UsageError: There are fewer than two samples, sizes differ, or a number is
      not finite.

  Example:
    >>> a = Moments(2, np.array([0.0]), np.array([[2.0]]))
    >>> b = Moments(2, np.array([3.0]), np.array([[2.0]]))
    >>> round(frechet_distance(a, b).value, 6)
    9.0
  """
  if min(a.count, b.count) < 2 or a.mean.shape != b.mean.shape:
    raise UsageError(
      f"moments of {a.count} samples of {len(a.mean)} numbers and of {b.count} "
      f"of {len(b.mean)}: give two samples or more, of one size"
    )
  if not all(np.isfinite(x.scatter.sum() + x.mean.sum()) for x in (a, b)):
    raise UsageError("moments are not finite; compute them anew")
  apart = a.mean - b.mean
  factor_a, factor_b = _factor(a.covariance), _factor(b.covariance)
  mixed = factor_b.T @ factor_a
  squares, left = np.linalg.eigh(mixed @ mixed.T)
  kept = squares > max(squares[-1], 0) * len(squares) * _EPSILON
  singular, left = np.sqrt(squares[kept]), left[:, kept]
  trace = np.trace(a.covariance) + np.trace(b.covariance) - 2 * singular.sum()
  roots = np.sqrt(singular)
  map_a = factor_b @ (left / roots)
  map_b = factor_a @ (mixed.T @ left / (singular * roots))
  variance = _variance(a, apart, map_a, rows_a) / a.count
  variance += _variance(b, -apart, map_b, rows_b) / b.count
  # Rounding can make the distance of equal moments negative.
  value = max(0.0, float(apart @ apart + trace))
  return Estimate(value=value, error=math.sqrt(variance))


def _factor(matrix: Matrix) -> Matrix:
  """Return L with L L^T = matrix, [D, D], positive semidefinite."""
  try:
    return np.asarray(np.linalg.cholesky(matrix), np.float64)
  except np.linalg.LinAlgError:
    # Of less than full rank.
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0)), np.float64)


def _variance(
  moments: Moments, apart: Matrix, factor: Matrix, rows: ArrayLike | None
) -> float:
  """Compute the variance of eq. (3) over one set's rows [K, D].

  `apart` is its mean less the other set's, `factor` the P of its map to the
  other set. Without rows the set is taken for a Gaussian.
  """
  if rows is None:
    covariance = moments.covariance
    product = covariance - factor @ (factor.T @ covariance)
    linear = 4 * apart @ covariance @ apart
    return float(linear + 2 * np.sum(product * product.T))
  points = as_points("rows", rows)
  if len(points) < 2 or points.shape[1] != len(apart):
    raise UsageError(
      f"rows have shape {points.shape}; give two or more of {len(apart)} "
      "numbers, as the moments have"
    )
  moved = points - moments.mean
  influence = 2 * moved @ apart + np.sum(moved**2, axis=1)
  influence -= np.sum((moved @ factor) ** 2, axis=1)
  return float(influence.var(ddof=1))
