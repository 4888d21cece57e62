"""Order of the samples in an endless shuffled stream of batches.

The stream is the concatenation of one permutation of the data set per epoch,
and the permutation of epoch e depends on (seed, e) only. Batch i of size B
holds the stream positions [i B, (i + 1) B), so nothing is dropped where an
epoch ends. Other draws for batch i depend on (seed, i, purpose).
"""

import functools

import numpy as np

# The last part of a seed, by its purpose; permutations have none.
NOISE, MASK, MIRROR, SAMPLE, PLACE = 1, 2, 3, 4, 5


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
