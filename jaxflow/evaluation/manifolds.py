"""Are samples plausible, and do they cover the data: counts of neighbours.

Round each point of a set lies a closed ball, with the distance to the point's
k-th nearest other point of the set as radius. The union of the balls stands for
where the set's law has mass:

  precision   share of fake samples in a real ball                        (1)
  recall      share of real samples in a fake ball                        (2)
  density     mean number of real balls round a fake sample, over k       (3)
  coverage    share of real balls with a fake sample in it                (4)

The errors have two parts. Where a sample is judged, it is drawn from its law
like the others. Where balls are laid, the sets are split into groups, and the
numbers computed anew with each of them left out (the jackknife).

References:
  Kynkaanniemi et al., Improved precision and recall metric for assessing
  generative models, 2019, arXiv:1904.06991, equations 1 and 2 for (1) and (2);
  Naeem et al., Reliable fidelity and diversity metrics for generative models,
  2020, arXiv:2002.09797, equations 3 and 4 for (3) and (4).
"""

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.errors import UsageError
from jaxflow.evaluation.estimates import Estimate, jackknife, mean_of
from jaxflow.evaluation.points import (
  Points,
  as_pair,
  centred,
  distance_chunks,
)

_GROUPS = 10
# Neighbours remembered beyond the k-th: enough to leave out a random group.
_SPARE = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifolds:
  """Eqs. (1) to (4) of two sets; all but density lie in [0, 1]."""

  precision: Estimate
  recall: Estimate
  density: Estimate
  coverage: Estimate


def manifolds(
  real: ArrayLike, fake: ArrayLike, k: int = 3, *, seed: int = 0
) -> Manifolds:
  """Computes precision, recall, density and coverage from the same distances.

  The published numbers of (1) and (2) use features of a VGG-16 and k = 3, those
  of (3) and (4) k = 5; this takes whatever it is given, so numbers on pixels
  compare only with numbers on pixels. Read them together: samples far from each
  other have large balls, so noise can reach full recall at no precision.
  Distances are computed some rows at a time.

  Args:
    real: samples, [N, ...] with N > k, flattened to [N, D].
    fake: samples of the same shape, [M, ...] with M > k.
    k: which nearest neighbour sets the radius, at least 1.
    seed: of the groups of the jackknife, on which only the errors depend.

  Returns:
    The four numbers.

  Raises:
    UsageError: the shapes differ, a sample is not finite, or k is out of range.

  References:
    Kynkaanniemi et al. 2019; Naeem et al. 2020.

  Example:
    >>> real, fake = [[0.0], [1.0], [2.0], [3.0]], [[1.0], [1.6], [9.0]]
    >>> found = manifolds(real, fake, k=1)
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
  generator = np.random.default_rng(seed)
  group_of_real, group_of_fake = (
    generator.permutation(len(points)) % _GROUPS for points in (real, fake)
  )
  real_radii = _radii(real, group_of_real, k)
  fake_radii = _radii(fake, group_of_fake, k)
  # Row 0 is with all samples, row 1 + g without group g.
  around = np.zeros((len(real_radii), len(fake)), np.intp)
  held = np.zeros((len(fake_radii), len(real)), bool)
  nearest = np.full((_GROUPS, len(real)), np.inf)
  for rows, distances in distance_chunks(fake, real):
    for variant, radii in enumerate(real_radii):
      around[variant, rows] = (distances <= radii).sum(axis=1)
    for variant, radii in enumerate(fake_radii[:, rows]):
      held[variant] |= (distances <= radii[:, None]).any(axis=0)
    for group in range(_GROUPS):
      members = distances[group_of_fake[rows] == group]
      least = members.min(axis=0, initial=np.inf)
      nearest[group] = np.minimum(nearest[group], least)
  return Manifolds(
    precision=_judged(around > 0),
    recall=_judged(held),
    density=_judged(around / k),
    coverage=_coverage(nearest, real_radii, group_of_real),
  )


def _radii(points: Points, group: NDArray[np.integer], k: int) -> Points:
  """Finds each point's distance to its k-th nearest other point.

  Args:
    points: [N, D].
    group: which group each belongs to, [N].
    k: from 1 to N - 1.

  Returns:
    [1 + G, N]: with all points, and without each group; a point that is left
    out has a ball that holds nothing.
  """
  result = np.empty((1 + _GROUPS, len(points)))
  remembered = min(k + _SPARE, len(points) - 1)
  for rows, distances in distance_chunks(points, points):
    here = np.arange(rows.start, rows.stop)
    distances[here - rows.start, here] = np.inf
    found = np.argpartition(distances, remembered - 1, axis=1)[:, :remembered]
    near = np.take_along_axis(distances, found, 1)
    order = np.argsort(near, axis=1)
    near = np.take_along_axis(near, order, 1)
    found = np.take_along_axis(found, order, 1)
    result[0, rows] = near[:, k - 1]
    for left_out in range(_GROUPS):
      counts = np.cumsum(group[found] != left_out, axis=1)
      # The last one remembered stands in where the group took too many.
      place = np.minimum((counts < k).sum(axis=1), remembered - 1)
      result[1 + left_out, rows] = near[np.arange(len(near)), place]
  for left_out in range(_GROUPS):
    result[1 + left_out, group == left_out] = -np.inf
  return result


def _judged(marks: NDArray) -> Estimate:
  """Averages marks [1 + G, N] of samples that the balls of others judge."""
  own = mean_of(marks[0])
  balls = jackknife(marks[1:].mean(axis=1))
  return Estimate(value=own.value, error=math.hypot(own.error or 0, balls**0.5))


def _coverage(
  nearest: Points, radii: Points, group: NDArray[np.integer]
) -> Estimate:
  """Computes eq. (4).

  Args:
    nearest: distance of each real sample to the fake ones of a group, [G, N].
    radii: of the real balls, [1 + G, N].
    group: of each real sample, [N].
  """
  least = nearest.min(axis=0)
  without_fake = [
    (np.delete(nearest, left_out, axis=0).min(axis=0) <= radii[0]).mean()
    for left_out in range(_GROUPS)
  ]
  without_real = [
    (least <= radii[1 + left_out])[group != left_out].mean()
    for left_out in range(_GROUPS)
    if (group != left_out).any()
  ]
  error = math.sqrt(jackknife(without_fake) + jackknife(without_real))
  return Estimate(value=float((least <= radii[0]).mean()), error=error)
