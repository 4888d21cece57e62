"""Mean and covariance of samples that are never in one place.

A batch is reduced where it lies, on all devices of all processes, to its mean
and its scatter `sum (x - mean)(x - mean)^T`; only these travel. The host joins
batches in float64 (Chan et al. 1979, eq. 2.1):

  mean = mean_a + (n_b / n) d,   scatter = S_a + S_b + (n_a n_b / n) d d^T,
  d = mean_b - mean_a,   n = n_a + n_b.
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxflow import processes
from jaxflow.errors import RunError, UsageError

# Covariances of more numbers take a minute and more to compare.
LARGEST = 4096


@dataclasses.dataclass(frozen=True)
class Moments:
  """Moments of n samples of D numbers, float64.

  Attributes:
    count: n.
    mean: The mean, [D].
    scatter: Sum of the outer products of what is left, [D, D].
  """

  count: int
  mean: NDArray[np.float64]
  scatter: NDArray[np.float64]

  @property
  def covariance(self) -> NDArray[np.float64]:
    """Unbiased covariance, [D, D]; needs two samples."""
    return self.scatter / (self.count - 1)


@jax.jit
def batch_moments(batch: Any, rows: Any) -> tuple[jax.Array, jax.Array]:
  """Reduces the first rows of a batch, on the devices where it lies.

  Args:
    batch: Samples [B, ...], flattened to [B, D].
    rows: How many of them count.

  Returns:
    Their mean [D] and scatter [D, D], float32.
  """
  x = batch.reshape(len(batch), -1).astype(jnp.float32)
  counts = (jnp.arange(len(x)) < rows)[:, None]
  mean = jnp.where(counts, x, 0).sum(axis=0) / rows
  # Centred before it is squared: float32 would not hold the difference.
  centred = jnp.where(counts, x - mean[None], 0)
  precise = functools.partial(jnp.matmul, precision="highest")
  return mean, precise(centred.T, centred)


def merge(a: Moments, b: Moments) -> Moments:
  """Joins the moments of two sets of samples.

  Example:
    >>> a = Moments(1, np.array([0.0]), np.zeros((1, 1)))
    >>> b = Moments(1, np.array([2.0]), np.zeros((1, 1)))
    >>> merge(a, b).mean.tolist(), merge(a, b).covariance.tolist()
    ([1.0], [[2.0]])
  """
  count, apart = a.count + b.count, b.mean - a.mean
  return Moments(
    count,
    a.mean + apart * (b.count / count),
    a.scatter
    + b.scatter
    + np.outer(apart, apart) * (a.count * b.count / count),
  )


def moments(batches: Iterable[tuple[Any, int]]) -> Moments:
  """Reduces a stream of batches.

  Args:
    batches: Samples [B, ...], one size for all, and how many of them count.

  Returns:
    The moments of all that count.

  Raises:
    RunError: A sample is not finite.
    UsageError: A sample has more than `LARGEST` numbers.

  Example:
    >>> found = moments([(np.array([[1.0], [3.0]]), 2), (np.ones((2, 1)), 1)])
    >>> found.count, round(float(found.mean[0]), 6)
    (3, 1.666667)
  """
  total = None
  for batch, rows in batches:
    size = int(np.prod(batch.shape[1:]))
    if size > LARGEST:
      raise UsageError(
        f"a sample has {size} numbers, more than {LARGEST}: reduce it to "
        "features first"
      )
    reduced = processes.gather(batch_moments(batch, rows))
    mean, scatter = (x.astype("f8") for x in reduced)
    if not np.isfinite(scatter.sum()):
      raise RunError("samples are not finite")
    part = Moments(rows, mean, scatter)
    total = part if total is None else merge(total, part)
  if total is None:
    raise UsageError("no batch: give at least one")
  return total
