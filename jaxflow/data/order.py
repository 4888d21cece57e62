"""Order of the samples in an endless shuffled stream of batches.

The stream is the concatenation of one permutation of the data set per epoch,
and the permutation of epoch e depends on (seed, e) only. Batch i of size B
holds the stream positions [i B, (i + 1) B), so nothing is dropped where an
epoch ends. Other draws for batch i depend on (seed, i, purpose).

In a grouped stream each class has a shuffled stream of its own. Which classes,
and which of their samples, are in batch i depends on (seed, i) only.
"""

import functools
import itertools

import numpy as np

from jaxflow.errors import UsageError

# The last part of a seed, by its purpose; permutations have none.
NOISE, MASK, MIRROR, SAMPLE, PLACE, CLASSES, ROWS = 1, 2, 3, 4, 5, 6, 7


class Order:
  """The order of the samples in all batches.

  Args:
    size: Number of samples N.
    batch_size: Samples B of one batch; may exceed N.
    seed: Non-negative seed.

  Example:
    >>> order = Order(3, batch_size=6, seed=0)
    >>> sorted(order.samples(7, 1).tolist())
    [0, 0, 1, 1, 2, 2]
  """

  def __init__(self, size: int, *, batch_size: int, seed: int):
    self._size = size
    self._batch_size = batch_size
    self._seed = seed
    # Two: where an epoch ends, some rows are of the next.
    self._permutation = functools.lru_cache(2)(self._permute)

  def samples(self, first: int, count: int) -> np.ndarray:
    """Return the samples [count * B] of batches `first`, `first + 1`, ..."""
    start, stop = (n * self._batch_size for n in (first, first + count))
    parts = []
    for epoch in range(start // self._size, (stop - 1) // self._size + 1):
      begin = epoch * self._size
      low, high = max(start - begin, 0), min(stop - begin, self._size)
      parts.append(self._permutation(epoch)[low:high])
    return np.concatenate(parts)

  def mirrored(self, first: int, count: int) -> np.ndarray:
    """Return which rows are mirrored, about half: flags [count * B]."""
    seeds = ((self._seed, first + i, MIRROR) for i in range(count))
    draws = [np.random.default_rng(s).random(self._batch_size) for s in seeds]
    return np.concatenate(draws) < 0.5

  def places(self, first: int, count: int) -> np.ndarray:
    """Return where images are cut, numbers [count * B, 2] in [0, 1)."""
    seeds = ((self._seed, first + i, PLACE) for i in range(count))
    shape = self._batch_size, 2
    draws = [np.random.default_rng(s).random(shape) for s in seeds]
    return np.concatenate(draws)

  def _permute(self, epoch: int) -> np.ndarray:
    return np.random.default_rng((self._seed, epoch)).permutation(self._size)


def count_groups(batch_size: int, group: int, num_classes: int) -> int:
  """Return how many groups of `group` rows, each of another class, a batch has.

  Raises UsageError if that is no whole number, or more than there are classes.

  Example:
    >>> count_groups(8, group=4, num_classes=10)
    2
  """
  count, rest = divmod(batch_size, group)
  if rest or not count:
    raise UsageError(
      f"batch_size={batch_size} is no multiple of {group}, the rows of a "
      f"group: use {-(-batch_size // group) * group}"
    )
  if count > num_classes:
    raise UsageError(
      f"batch_size={batch_size} has {count} groups of {group} rows, and the "
      f"data {num_classes} classes: use {num_classes * group} or less, or "
      "larger groups"
    )
  return count


class GroupedOrder(Order):
  """The order of the samples in batches of groups, each of one class.

  A batch has B / P groups of P rows, and no class twice. A round is one
  permutation of the classes, of which each batch takes as many as it has
  groups; those that are left fill no batch. In round r a class gives the r-th P
  samples of its own shuffled stream, where an epoch leaves out the samples that
  fill no group; a class with fewer than P samples repeats them.

  Args:
    labels: Classes [N] in 0..num_classes - 1; other samples are never drawn.
    num_classes: Number of classes K.
    group: Rows P of a group.
    batch_size: Samples B of one batch, a multiple of P, at most K P.
    seed: Non-negative seed.

  Raises:
    UsageError: A class has no sample, or the sizes do not fit.

  Example:
    >>> labels = np.array([0, 1, 1, 0])
    >>> order = GroupedOrder(
    ...     labels, num_classes=2, group=2, batch_size=4, seed=0)
    >>> sorted(labels[order.samples(5, 1)[:2]].tolist()) in ([0, 0], [1, 1])
    True
  """

  def __init__(
    self,
    labels: np.ndarray,
    *,
    num_classes: int,
    group: int,
    batch_size: int,
    seed: int,
  ):
    super().__init__(len(labels), batch_size=batch_size, seed=seed)
    self._count = count_groups(batch_size, group, num_classes)
    # Stable, so that the samples of a class keep their order.
    by_class = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[by_class], np.arange(num_classes + 1))
    self._members = [by_class[a:b] for a, b in itertools.pairwise(ends)]
    empty = [i for i, rows in enumerate(self._members) if not len(rows)]
    if empty:
      raise UsageError(
        f"class {empty[0]} has no sample, and a group is of one class: leave "
        "the class out, or give it samples"
      )
    self._group = group
    self._classes = num_classes
    # Two: where batches are read in pieces, one round meets the next.
    self._round = functools.lru_cache(2)(self._permute_classes)
    self._shuffled = functools.lru_cache(2 * num_classes)(self._shuffle)

  def samples(self, first: int, count: int) -> np.ndarray:
    """Return the samples [count * B] of batches `first`, `first + 1`, ..."""
    parts = []
    for batch in range(first, first + count):
      number, place = divmod(batch, self._classes // self._count)
      begin = place * self._count
      chosen = self._round(number)[begin : begin + self._count]
      parts += [self._rows(int(x), number) for x in chosen]
    return np.concatenate(parts)

  def _rows(self, label: int, number: int) -> np.ndarray:
    """Return the P samples of a class in a round."""
    size = len(self._members[label])
    if size < self._group:
      return np.resize(self._shuffled(label, number), self._group)
    epoch, place = divmod(number, size // self._group)
    begin = place * self._group
    return self._shuffled(label, epoch)[begin : begin + self._group]

  def _shuffle(self, label: int, epoch: int) -> np.ndarray:
    seed = self._seed, epoch, ROWS, label
    return np.random.default_rng(seed).permutation(self._members[label])

  def _permute_classes(self, number: int) -> np.ndarray:
    seed = self._seed, number, CLASSES
    return np.random.default_rng(seed).permutation(self._classes)
