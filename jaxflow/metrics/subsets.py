"""Random subsets of labelled data that keep the class frequencies."""

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer]
Indices = NDArray[np.intp]


def proportional_subset(
  generator: np.random.Generator, label: Labels, num: int
) -> Indices:
  """Choose rows so that every class keeps its share, to within one row.

  Args:
    generator: the source of randomness.
    label: class of each row, [N].
    num: number of rows to choose, from 1 to N.

  Returns:
    Distinct row numbers in increasing order, [num].

  Example:
    >>> label = np.array([0, 1, 1, 0, 1, 1])
    >>> rows = proportional_subset(np.random.default_rng(0), label, 3)
    >>> sorted(label[rows].tolist())
    [0, 1, 1]
  """
  shuffled = generator.permutation(len(label))
  by_class = shuffled[np.argsort(label[shuffled], kind="stable")]
  # Evenly spaced positions in the order of classes are proportional.
  return np.sort(by_class[np.arange(num) * len(label) // num])


def random_subset(
  generator: np.random.Generator,
  size: int,
  num: int,
  label: Labels | None = None,
) -> Indices:
  """Choose rows in random order.

  Args:
    generator: the source of randomness.
    size: number of rows N.
    num: number of rows to choose; all rows if there are fewer.
    label: class of each row, [N], to keep the classes' shares, or None.

  Returns:
    Distinct row numbers, [min(num, N)].

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
  """Repeat labels up to a number, keeping the classes' shares.

  Args:
    generator: the source of randomness.
    label: classes, [N].
    num: number of labels.

  Returns:
    Whole copies of the labels, then a random part of them, [num].

  Example:
    >>> label = np.repeat([0, 1], 50)
    >>> found = repeated_labels(np.random.default_rng(0), label, 130)
    >>> np.bincount(found).tolist()
    [65, 65]
  """
  whole, rest = divmod(num, len(label))
  rows = random_subset(generator, len(label), rest, label) if rest else []
  return np.concatenate([np.tile(label, whole), label[np.asarray(rows, int)]])
