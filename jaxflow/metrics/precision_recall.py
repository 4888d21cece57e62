"""Precision, recall, density and coverage, by nearest neighbours.

Every point of a set has a closed ball around it. Its radius is the distance to
the point's k-th nearest other point of the set. The union of the balls
approximates the support of the distribution:

  precision   share of fake samples in a real ball                        (1)
  recall      share of real samples in a fake ball                        (2)
  density     mean number of real balls around a fake sample, over k      (3)
  coverage    share of real balls that contain a fake sample              (4)

A sample changes the balls of its neighbours, so influences give no errors. The
errors come from random disjoint blocks of both sets instead.

References:
  Kynkaanniemi et al., Improved precision and recall metric for assessing
  generative models, 2019, arXiv:1904.06991, equations 1 and 2 for (1) and (2);
  Naeem et al., Reliable fidelity and diversity metrics for generative models,
  2020, arXiv:2002.09797, section 3, for (3) and (4).
"""

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike

from jaxflow.errors import UsageError
from jaxflow.metrics.estimates import Estimate, random_blocks
from jaxflow.metrics.points import Points, as_pair, centred, distance_chunks

_BLOCKS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
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

  References:
    Kynkaanniemi et al. 2019; Naeem et al. 2020.

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
  values = _shares(real, fake, k)
  blocks = min(_BLOCKS, smallest // (2 * (k + 1)))
  names = [field.name for field in dataclasses.fields(PrecisionRecall)]
  if blocks < 2:
    return PrecisionRecall(
      **{
        name: Estimate(value=value, error=None, num=len(fake))
        for name, value in zip(names, values, strict=True)
      }
    )
  generator = np.random.default_rng(seed)
  rows_real, rows_fake = (
    random_blocks(generator, len(points), blocks) for points in (real, fake)
  )
  found = [
    _shares(real[some], fake[others], k)
    for some, others in zip(rows_real, rows_fake, strict=True)
  ]
  errors = np.std(found, axis=0, ddof=1) / math.sqrt(blocks)
  return PrecisionRecall(
    **{
      name: Estimate(
        value=value, error=float(error), degrees=blocks - 1, num=len(fake)
      )
      for name, value, error in zip(names, values, errors, strict=True)
    }
  )


def _shares(
  real: Points, fake: Points, k: int
) -> tuple[float, float, float, float]:
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
