"""The Frechet distance of two Gaussians, and its standard error.

With means m, n and covariances S, C of the two sets and R = C^(1/2),

  F = |m - n|^2 + tr(S + C - 2 (R S R)^(1/2)).                            (1)

Its gradients by m and S are 2 (m - n) and I - T with T = R (R S R)^(-1/2) R,
the optimal map of the first Gaussian to the second. So the influence of a
sample x of the first set is, up to a constant,

  2 (m - n) . (x - m) + (x - m)^T (I - T) (x - m),                        (2)

and likewise for the second. Where covariances are singular, the inverse is that
on the range. F is biased: it falls with the number of samples, so compare at
equal numbers.

References:
  Dowson and Landau, The Frechet distance between multivariate normal
  distributions, 1982, eq. 4 for (1). Heusel et al. 2017 (arXiv:1706.08500).
  Bhatia, Jain, Lim, On the Bures-Wasserstein distance between positive definite
  matrices, 2019 (arXiv:1712.01504), for the map T.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.errors import UsageError
from jaxflow.evaluation.estimates import Estimate
from jaxflow.evaluation.moments import Moments
from jaxflow.evaluation.points import as_points

Matrix = NDArray[np.float64]


def frechet_distance(
  a: Moments,
  b: Moments,
  *,
  rows_a: ArrayLike | None = None,
  rows_b: ArrayLike | None = None,
) -> Estimate:
  """Computes the Frechet distance of the Gaussians with these moments.

  Args:
    a: Moments of two samples or more, of D numbers.
    b: Likewise, of as many numbers.
    rows_a: Some of the samples of a, [K, D], of which the variance of (2) is
      taken; that of a Gaussian without them.
    rows_b: Likewise of b.

  Returns:
    The distance, in the squared unit of the samples, >= 0.

  Raises:
    UsageError: There are fewer than two samples, sizes differ, or a number is
      not finite.

  References:
    Dowson and Landau 1982, eq. 4.

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
  root_a, root_b = _power(a.covariance, 0.5), _power(b.covariance, 0.5)
  mixed = np.linalg.eigvalsh(root_a @ b.covariance @ root_a)
  trace = np.trace(a.covariance) + np.trace(b.covariance)
  # Rounding alone makes an eigenvalue negative.
  trace -= 2 * np.sqrt(np.maximum(mixed, 0)).sum()
  variance = _variance(a, apart, root_b, rows_a) / a.count
  variance += _variance(b, -apart, root_a, rows_b) / b.count
  return Estimate(
    value=max(0.0, float(apart @ apart + trace)), error=math.sqrt(variance)
  )


def _power(matrix: Matrix, exponent: float) -> Matrix:
  """Raises the eigenvalues of a symmetric matrix that are not zero."""
  values, vectors = np.linalg.eigh(matrix)
  least = max(values[-1], 0) * len(values) * np.finfo(np.float64).eps
  kept = values > least
  vectors = vectors[:, kept]
  return (vectors * values[kept] ** exponent) @ vectors.T


def _variance(
  moments: Moments, apart: Matrix, other_root: Matrix, rows: ArrayLike | None
) -> float:
  """Computes the variance of eq. (2).

  Args:
    moments: of the set whose samples move.
    apart: its mean less that of the other.
    other_root: root of the other's covariance.
    rows: samples, [K, D], or None for those of a Gaussian.
  """
  covariance = moments.covariance
  inner = _power(other_root @ covariance @ other_root, -0.5)
  gradient = np.eye(len(apart)) - other_root @ inner @ other_root
  if rows is None:
    product = gradient @ covariance
    return float(
      4 * apart @ covariance @ apart + 2 * np.sum(product * product.T)
    )
  points = as_points("rows", rows)
  if len(points) < 2 or points.shape[1] != len(apart):
    raise UsageError(
      f"rows have shape {points.shape}; give two or more of {len(apart)} "
      "numbers, as the moments have"
    )
  moved = points - moments.mean
  influence = 2 * moved @ apart + np.sum(moved @ gradient * moved, axis=1)
  return float(influence.var(ddof=1))
