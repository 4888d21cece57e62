"""The training samples that generated ones are nearest to, and copies.

A network that has learnt its training set by heart scores well by most metrics.
Distances to the training set tell: samples of the same distribution that were
not trained on are as far from it as they are.

References:
  Lopez-Paz, Oquab 2016 (arXiv:1610.06545), section 3.4: nearest neighbours are
  looked at in a space of features, since a shift by a pixel is far in pixels.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.errors import UsageError
from jaxflow.metrics.estimates import Estimate
from jaxflow.metrics.points import as_pair


def nearest_neighbours(
  samples: ArrayLike, train: ArrayLike, *, k: int = 3
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
  """Find the nearest training samples by Euclidean distance.

  Args:
    samples: generated samples, or features of them, [N, ...].
    train: training samples, or features of them, [M, ...].
    k: how many, at most M.

  Returns:
    Row numbers of the nearest first, [N, k], and their distances, [N, k].

  Raises:
    UsageError: the shapes differ, a number is not finite, or k does not fit.

  Example:
    >>> train = [[5.0], [1.0], [-2.0]]
    >>> index, distance = nearest_neighbours([[0.0]], train, k=2)
    >>> index.tolist(), distance.tolist()
    ([[1, 2]], [[1.0, 2.0]])
  """
  from sklearn.neighbors import NearestNeighbors

  a, b = as_pair("samples", samples, "train", train)
  if not 1 <= k <= len(b):
    raise UsageError(f"k={k}: give 1 to {len(b)}, the number of train")
  distance, index = NearestNeighbors(n_neighbors=k).fit(b).kneighbors(a)
  return index, distance


def memorisation(
  samples: ArrayLike,
  train: ArrayLike,
  held_out: ArrayLike,
  *,
  quantile: float = 0.01,
) -> Estimate:
  """Measure the share of samples that are suspiciously near to training data.

  Near is what only a share of `quantile` of held-out samples is: nearer to
  their nearest training sample than that quantile of such distances. Samples of
  the true distribution score `quantile`; copies of training samples 1.

  Args:
    samples: generated samples, or features of them, [N, ...].
    train: training samples, or features of them, [M, ...].
    held_out: other real samples, or features of them, [L, ...].
    quantile: between 0 and 1.

  Returns:
    The share, and its standard error over both sets: binomial of the samples,
    and of the held-out ones that say what is near, as if the laws were equal.

  Raises:
    UsageError: the shapes differ, a number is not finite, or the quantile is
      not between 0 and 1.

  Example:
    >>> real = np.arange(200.0)
    >>> memorisation(real[:50], real[:100], real[100:]).value
    1.0
  """
  if not 0 < quantile < 1:
    raise UsageError(f"quantile={quantile}: give a number between 0 and 1")
  _, of_real = nearest_neighbours(held_out, train, k=1)
  _, of_samples = nearest_neighbours(samples, train, k=1)
  share = float(np.mean(of_samples < np.quantile(of_real, quantile)))
  variance = share * (1 - share) / len(of_samples)
  variance += quantile * (1 - quantile) / len(of_real)
  error = float(np.sqrt(variance))
  return Estimate(value=share, error=error)
