"""Precision and recall: are samples plausible, and do they cover the data."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import pairwise_distances_chunked

from jaxflow.errors import UsageError
from jaxflow.evaluation.points import Points, as_pair, centred

_WORKING_MEMORY_MIB = 256


def precision_recall(
  real: ArrayLike, fake: ArrayLike, k: int = 3
) -> tuple[float, float]:
  """Computes the improved precision and recall of samples.

  The manifold of a set is the union of closed balls, one round each of its
  points, with the distance to the point's k-th nearest other point as radius.
  Precision is the share of fake samples on the real manifold, recall the share
  of real samples on the manifold of the fake ones. The published numbers use
  features of a VGG-16; this takes whatever it is given, so numbers on pixels
  compare only with numbers on pixels. Read the two together: samples far from
  each other have large balls, so noise can reach full recall at no precision.

  Args:
    real: samples, [N, ...] with N > k, flattened to [N, D].
    fake: samples of the same shape, [M, ...] with M > k.
    k: which nearest neighbour sets the radius, at least 1.

  Returns:
    Precision and recall, each in [0, 1].

  Raises:
    UsageError: the shapes differ, a sample is not finite, or k is out of range.

  References:
    Kynkaanniemi et al., Improved precision and recall metric for assessing
    generative models, 2019, arXiv:1904.06991, equations 1 and 2.

  Example:
    >>> real, fake = [[0.0], [1.0], [2.0], [3.0]], [[1.0], [1.6], [9.0]]
    >>> precision, recall = precision_recall(real, fake, k=1)
    >>> round(precision, 3), recall
    (0.667, 0.75)
  """
  real, fake = centred(*as_pair("real", real, "fake", fake))
  smallest = min(len(real), len(fake))
  if not 1 <= k < smallest:
    raise UsageError(
      f"k is {k}; give a number from 1 to {smallest - 1}, below the number of "
      "samples"
    )
  precision = _covered(fake, real, _radii(real, k)).mean()
  recall = _covered(real, fake, _radii(fake, k)).mean()
  return float(precision), float(recall)


def _radii(points: Points, k: int) -> Points:
  """Finds each point's distance to its k-th nearest other point, [N]."""
  # Entry 0 of a sorted row is the point itself, at distance zero.
  chunks = pairwise_distances_chunked(
    points,
    reduce_func=lambda distances, _: np.partition(distances, k, axis=1)[:, k],
    working_memory=_WORKING_MEMORY_MIB,
  )
  return np.concatenate(list(chunks))


def _covered(
  points: Points, centres: Points, radii: Points
) -> NDArray[np.bool_]:
  """Says of each point [N, D] whether a ball round a centre holds it, [N]."""
  chunks = pairwise_distances_chunked(
    points,
    centres,
    reduce_func=lambda distances, _: (distances <= radii).any(axis=1),
    working_memory=_WORKING_MEMORY_MIB,
  )
  return np.concatenate(list(chunks))
