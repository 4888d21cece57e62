"""Metrics by nearest neighbours: memorisation, precision and recall.

A network that has memorised its training set scores well by most metrics. Its
distances to the training set reveal it: they are shorter than those of held-out
samples.

Precision and recall ask whether samples lie in the support of a distribution.
Every point of a set has a closed ball around it. Its radius is the distance to
the point's k-th nearest other point of the set. The union of the balls
approximates the support:

  precision   share of fake samples in a real ball                        (1)
  recall      share of real samples in a fake ball                        (2)
  density     mean number of real balls around a fake sample, over k      (3)
  coverage    share of real balls that contain a fake sample              (4)

A sample changes the balls of its neighbours, so influences give no errors. The
errors come from random disjoint blocks of both sets instead.

References:
  Lopez-Paz, Oquab 2016 (arXiv:1610.06545), section 3.4: nearest neighbours in a
  feature space, because a shift by one pixel is a large distance in pixels.
  Kynkaanniemi et al., Improved precision and recall metric for assessing
  generative models, 2019, arXiv:1904.06991, equations 1 and 2 for (1) and (2);
  Naeem et al., Reliable fidelity and diversity metrics for generative models,
  2020, arXiv:2002.09797, section 3, for (3) and (4).
"""

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.errors import UsageError
from jaxflow.metrics.estimates import Estimate, over_blocks
from jaxflow.metrics.points import Points, as_pair, centred, distance_chunks

_BLOCKS = 10


def nearest_neighbours(
  samples: ArrayLike, train: ArrayLike, *, k: int = 3
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
  """Find the k nearest training samples by Euclidean distance.

  Both sets, [N, ...] and [M, ...], are samples or features of samples.

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
  distribution score `quantile`, and copies of training samples score 1. The
  error includes the binomial errors of the samples and of the quantile.

  The three sets, [N, ...], [M, ...] and [L, ...], are samples or features of
  samples.

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
  return Estimate(value=share, error=math.sqrt(variance))


@dataclasses.dataclass(frozen=True)
class PrecisionRecall:
  """Eqs. (1) to (4) for two sets; all but density lie in [0, 1]."""

  precision: Estimate
  recall: Estimate
  density: Estimate
  coverage: Estimate


def precision_recall(
  real: ArrayLike, fake: ArrayLike, k: int = 3, *, seed: int = 0
) -> PrecisionRecall:
  """Compute precision, recall, density and coverage, eqs. (1) to (4).

  Published numbers of (1) and (2) use VGG-16 features and k = 3, those of (3)
  and (4) use k = 5. Compare only numbers of the same features. Read the four
  together: samples far from each other have large balls, so noise can have full
  recall without any precision.

  Args:
    real: samples, [N, ...] with N > k, flattened to [N, D].
    fake: samples of the same shape, [M, ...] with M > k.
    k: rank of the neighbour that sets the radius, at least 1.
    seed: seed of the blocks; only the errors depend on it.

  Returns:
    The four numbers; errors are None for fewer than 4 (k + 1) samples.

  Raises:
    UsageError: the shapes differ, a sample is not finite, or k is out of range.

  Example:
    >>> real, fake = [[0.0], [1.0], [2.0], [3.0]], [[1.0], [1.6], [9.0]]
    >>> found = precision_recall(real, fake, k=1)
    >>> round(found.precision.value, 3), found.recall.value
    (0.667, 0.75)
    >>> round(found.density.value, 3), found.coverage.value
    (1.667, 0.75)
  """
  real, fake = centred(*as_pair("real", real, "fake", fake))
  smallest = min(len(real), len(fake))
  if not 1 <= k < smallest:
    raise UsageError(
      f"k is {k}; give a number from 1 to {smallest - 1}, below the number of "
      "samples"
    )
  blocks = min(_BLOCKS, smallest // (2 * (k + 1)))
  errors, degrees = [None] * 4, None
  if blocks >= 2:
    found = over_blocks(
      lambda x, y: _shares(x, y, k), real, fake, blocks=blocks, seed=seed
    )
    errors = (np.std(found, axis=0, ddof=1) / math.sqrt(blocks)).tolist()
    degrees = blocks - 1
  return PrecisionRecall(
    *(
      Estimate(value=value, error=error, degrees=degrees, num=len(fake))
      for value, error in zip(_shares(real, fake, k), errors, strict=True)
    )
  )


def _shares(real: Points, fake: Points, k: int) -> tuple[float, ...]:
  """Compute eqs. (1) to (4) for [N, D] and [M, D]."""
  real_radii, fake_radii = _radii(real, k), _radii(fake, k)
  around = np.zeros(len(fake), np.intp)
  held = np.zeros(len(real), bool)
  nearest = np.full(len(real), np.inf)
  for rows, distances in distance_chunks(fake, real):
    around[rows] = (distances <= real_radii).sum(axis=1)
    held |= (distances <= fake_radii[rows, None]).any(axis=0)
    nearest = np.minimum(nearest, distances.min(axis=0))
  return (
    float((around > 0).mean()),
    float(held.mean()),
    float(around.mean() / k),
    float((nearest <= real_radii).mean()),
  )


def _radii(points: Points, k: int) -> Points:
  """Find each point's distance to its k-th nearest other point, [N]."""
  # Entry 0 is the point itself, at distance zero.
  return np.concatenate(
    [
      np.partition(distances, k, axis=1)[:, k]
      for _, distances in distance_chunks(points, points)
    ]
  )
