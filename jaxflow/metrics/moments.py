"""Mean and covariance as moments that can be merged over batches and hosts.

Every host reduces its own rows in float64 and merges them into its moments; at
the end the hosts merge theirs (Chan et al. 1979, eq. 2.1):

  mean = mean_a + (n_b / n) d,   scatter = S_a + S_b + (n_a n_b / n) d d^T,
  d = mean_b - mean_a,   n = n_a + n_b.

So batches and devices change the result only by float64 rounding. A difference
of squares, or float32, would be too inexact: the Frechet distance is a small
difference of large traces.
"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Moments:
  """Moments of n samples of D numbers, float64.

  Attributes:
    count: n.
    mean: The mean, [D].
    scatter: Sum of the outer products of the centred samples, [D, D].
  """

  count: int
  mean: NDArray[np.float64]
  scatter: NDArray[np.float64]

  @property
  def covariance(self) -> NDArray[np.float64]:
    """The unbiased covariance of at least two samples, [D, D]."""
    return self.scatter / (self.count - 1)

  @classmethod
  def of(cls, rows: ArrayLike) -> "Moments":
    """Compute the moments of samples.

    Args:
      rows: Samples [n, ...], n >= 1, flattened to [n, D].

    Raises:
      UsageError: There are no samples.

    Example:
      >>> found = Moments.of([[1.0], [3.0]])
      >>> found.mean.tolist(), found.covariance.tolist()
      ([2.0], [[2.0]])
    """
    array = np.asarray(rows, np.float64)
    if not array.size:
      raise UsageError(f"samples of shape {array.shape}: give at least one")
    array = array.reshape(len(array), -1)
    mean = array.mean(axis=0)
    centred = array - mean
    return cls(len(array), mean, centred.T @ centred)

  def merge(self, other: "Moments") -> "Moments":
    """Return the moments of both sets of samples together.

    Example:
      >>> Moments.of([[0.0]]).merge(Moments.of([[2.0]])).mean.tolist()
      [1.0]
    """
    count, apart = self.count + other.count, other.mean - self.mean
    between = np.outer(apart, apart) * (self.count * other.count / count)
    return Moments(
      count,
      self.mean + apart * (other.count / count),
      self.scatter + other.scatter + between,
    )
