"""Random subsets of labelled data with prescribed shares of the classes."""

import numpy as np
from numpy.typing import NDArray

from jaxflow.errors import UsageError

Labels = NDArray[np.integer]
Indices = NDArray[np.intp]


def proportional_subset(
  generator: np.random.Generator, label: Labels, num: int
) -> Indices:
  """Picks rows so that every class keeps its share, to within one row.

  Args:
    generator: the source of randomness.
    label: class of each row, [N].
    num: number of rows to pick, from 1 to N.

  Returns:
    Different row numbers in rising order, [num].

  Example:
    >>> label = np.array([0, 1, 1, 0, 1, 1])
    >>> rows = proportional_subset(np.random.default_rng(0), label, 3)
    >>> sorted(label[rows].tolist())
    [0, 1, 1]
  """
  shuffled = generator.permutation(len(label))
  by_class = shuffled[np.argsort(label[shuffled], kind="stable")]
  # Evenly spaced places in the sorted order meet each class in proportion.
  return np.sort(by_class[np.arange(num) * len(label) // num])


def matching_subset(
  generator: np.random.Generator, label: Labels, like: Labels
) -> Indices:
  """Picks rows with the same number of every class as another set has.

  Args:
    generator: the source of randomness.
    label: class of each row to pick from, [N].
    like: classes of the other set, [M].

  Returns:
    Different row numbers, [M], ordered by class.

  Raises:
    UsageError: there are fewer rows of a class than the other set has.

  Example:
    >>> label, like = np.array([0, 1, 1, 0, 1]), np.array([1, 0, 1])
    >>> rows = matching_subset(np.random.default_rng(0), label, like)
    >>> label[rows].tolist()
    [0, 1, 1]
  """
  rows = []
  for value, count in zip(*np.unique(like, return_counts=True), strict=True):
    candidates = np.flatnonzero(label == value)
    if len(candidates) < count:
      raise UsageError(
        f"train has {len(candidates)} samples of class {value} and reference "
        f"{count}; lower num or give more training data"
      )
    rows.append(generator.choice(candidates, count, replace=False))
  return np.concatenate(rows)
