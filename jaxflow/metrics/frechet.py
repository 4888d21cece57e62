"""The Frechet distance of two Gaussians, and its standard error.

The two sets have means m, n and covariances S = K K^T, C = L L^T. With the
singular values L^T K = U s V^T,

  F = |m - n|^2 + tr(S + C) - 2 sum s.                                    (1)

Its gradients by m and S are 2 (m - n) and I - T, where T = P P^T with
P = L U s^(-1/2) is the optimal map of the first Gaussian to the second
(T S T = C). So the influence of a sample x of the first set is, up to a
constant,

  2 (m - n) . (x - m) + |x - m|^2 - |P^T (x - m)|^2,                      (2)

and likewise for the second set with P = K V s^(-1/2). If a covariance is
singular, only s > 0 count. F is biased upwards for few samples, so compare at
equal numbers.

References:
  Dowson and Landau, The Frechet distance between multivariate normal
  distributions, 1982, for (1). Heusel et al. 2017 (arXiv:1706.08500).
  Bhatia, Jain, Lim, On the Bures-Wasserstein distance between positive definite
  matrices, 2019 (arXiv:1712.01504), for the map T.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.errors import UsageError
from jaxflow.metrics.estimates import Estimate
from jaxflow.metrics.moments import Moments
from jaxflow.metrics.points import as_points

Matrix = NDArray[np.float64]

_EPSILON = np.finfo(np.float64).eps


def frechet_distance(
  a: Moments,
  b: Moments,
  *,
  rows_a: ArrayLike | None = None,
  rows_b: ArrayLike | None = None,
) -> Estimate:
  """Compute the Frechet distance of the Gaussians with these moments.

  Args:
    a: Moments of at least two samples of D numbers.
    b: Moments of the other set, likewise.
    rows_a: Samples of a, [K, D], for the variance of (2); without them the
      variance is that of a Gaussian.
    rows_b: Samples of b, likewise.

  Returns:
    The distance, in the squared unit of the samples, >= 0.

  Raises:
    UsageError: There are fewer than two samples, sizes differ, or a number is
      not finite.

  References:
    Dowson and Landau 1982.

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
  return Estimate(
    value=max(0.0, float(apart @ apart + trace)), error=math.sqrt(variance)
  )


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
  """Compute the variance of eq. (2).

  Args:
    moments: moments of the set whose samples vary.
    apart: its mean less the mean of the other set.
    factor: P of its optimal map to the other set.
    rows: samples, [K, D], or None for a Gaussian.
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
