"""Nearest training samples, and the share of memorised samples.

A network that has memorised its training set scores well by most metrics. Its
distances to the training set reveal it: they are shorter than those of held-out
samples.

References:
  Lopez-Paz, Oquab 2016 (arXiv:1610.06545), section 3.4: nearest neighbours in a
  feature space, because a shift by one pixel is a large distance in pixels.
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
    k: number of neighbours, at most M.

  Returns:
    Row numbers, nearest first, [N, k], and distances, [N, k].

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
  """Compute the share of samples that are suspiciously near to training data.

  A sample is too near if its distance to the nearest training sample is below
  the `quantile` of these distances for held-out samples. So samples of the true
  distribution score `quantile`, and copies of training samples score 1.

  Args:
    samples: generated samples, or features of them, [N, ...].
    train: training samples, or features of them, [M, ...].
    held_out: other real samples, or features of them, [L, ...].
    quantile: between 0 and 1.

  Returns:
    The share; its standard error includes the binomial errors of the samples
    and of the held-out quantile.

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
