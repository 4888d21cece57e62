"""Random subsets of labelled data that keep the class frequencies."""

import jax
import numpy as np
from numpy.typing import NDArray

from jaxflow.metrics.points import evenly
from jaxflow.types import PyTree

Labels = NDArray[np.integer]
Indices = NDArray[np.intp]


def random_subset(
  generator: np.random.Generator,
  size: int,
  num: int,
  label: Labels | None = None,
) -> Indices:
  """Choose min(num, size) distinct row numbers, in random order.

  With labels, [size], every class keeps its share, to within one row; vectors,
  [size, K], are no classes.

  Example:
    >>> label = np.repeat([0, 1], 50)
    >>> rows = random_subset(np.random.default_rng(0), 100, 10, label)
    >>> label[rows].sum(), len(set(rows.tolist()))
    (np.int64(5), 10)
  """
  if num >= size:
    return generator.permutation(size)
  if label is None or label.ndim > 1:
    return generator.choice(size, num, replace=False)
  shuffled = generator.permutation(size)
  by_class = shuffled[np.argsort(label[shuffled], kind="stable")]
  # Evenly spaced positions in the order of classes are proportional.
  return generator.permutation(np.sort(evenly(by_class, num)))


def repeated_labels(
  generator: np.random.Generator, label: PyTree, num: int
) -> PyTree:
  """Repeat conditions [N, ...] up to a number, keeping the classes' shares.

  The result, [num, ...], is whole copies of them, then a random part.

  Example:
    >>> label = np.repeat([0, 1], 50)
    >>> found = repeated_labels(np.random.default_rng(0), label, 130)
    >>> np.bincount(found).tolist()
    [65, 65]
  """
  classes = label if isinstance(label, np.ndarray) else None
  size = len(jax.tree.leaves(label)[0])
  whole, rest = divmod(num, size)
  rows = random_subset(generator, size, rest, classes) if rest else []
  index = np.tile(np.arange(size), whole)
  index = np.concatenate([index, np.asarray(rows, int)])
  return jax.tree.map(lambda x: x[index], label)
