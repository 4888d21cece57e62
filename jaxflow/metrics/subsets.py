"""Random subsets of labelled data with prescribed shares of the classes."""

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer]
Indices = NDArray[np.intp]


def proportional_subset(
  generator: np.random.Generator, label: Labels, num: int
) -> Indices:
  """Pick rows so that every class keeps its share, to within one row.

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


def random_subset(
  generator: np.random.Generator,
  size: int,
  num: int,
  label: Labels | None = None,
) -> Indices:
  """Pick rows in random order, so that the first of them are a fair choice.

  Args:
    generator: the source of randomness.
    size: number of rows N.
    num: number of rows to pick; all of them where there are fewer.
    label: class of each row, [N]: classes keep their shares. Or None.

  Returns:
    Different row numbers, [min(num, N)].

  Example:
    >>> label = np.repeat([0, 1], 50)
    >>> rows = random_subset(np.random.default_rng(0), 100, 10, label)
    >>> label[rows].sum(), len(set(rows.tolist()))
    (np.int64(5), 10)
  """
  if num >= size:
    return generator.permutation(size)
  if label is None:
    return generator.choice(size, num, replace=False)
  return generator.permutation(proportional_subset(generator, label, num))


def repeated_labels(
  generator: np.random.Generator, label: Labels, num: int
) -> Labels:
  """Repeat labels until there are enough, with the shares of the classes.

  Args:
    generator: the source of randomness.
    label: classes, [N].
    num: how many.

  Returns:
    The labels over and over, and a random part of them, [num].

  Example:
    >>> label = np.repeat([0, 1], 50)
    >>> found = repeated_labels(np.random.default_rng(0), label, 130)
    >>> np.bincount(found).tolist()
    [65, 65]
  """
  whole, rest = divmod(num, len(label))
  rows = random_subset(generator, len(label), rest, label) if rest else []
  return np.concatenate([np.tile(label, whole), label[np.asarray(rows, int)]])
