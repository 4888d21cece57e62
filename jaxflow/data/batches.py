"""An endless, resumable stream of shuffled batches.

The stream is the concatenation of one permutation of the data set per epoch,
and the permutation of epoch e depends on (seed, e) only. Batch i of size B
holds the stream positions [i B, (i + 1) B), so nothing is dropped where an
epoch ends, and the number of batches taken is the whole state.
"""

from collections.abc import Mapping
from typing import Self

import numpy as np

from jaxflow.data.dataset import Dataset
from jaxflow.errors import UsageError


class Batches:
  """Iterates over shuffled batches of a data set, for ever.

  Args:
    dataset: The data set, of N samples.
    batch_size: Samples B of one batch over all processes; may exceed N.
    seed: Non-negative seed of the permutations.
    stack: () for one batch [B, ...] at a time, or (K, A) for K consecutive
      batches, each cut into A contiguous micro-batches: [K, A, B / A, ...].
    rows: Which rows of every (micro-)batch to hand out, ascending: those that
      this process's devices hold; default: all.

  Attributes:
    batch_size: As given.
    seed: As given.
    num_batches: Batches taken by one `next`, K.

  Raises:
    UsageError: The sizes do not divide, or an argument is out of range.

  Example:
    >>> from jaxflow.data import load
    >>> batches = Batches(load("ring", "train"), batch_size=32, seed=0)
    >>> {name: array.shape for name, array in next(batches).items()}
    {'data': (32, 2), 'cond': (32,)}
    >>> batches.get_state()
    {'position': 1}
  """

  def __init__(
    self,
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    stack: tuple[int, ...] = (),
    rows: np.ndarray | None = None,
  ):
    if len(stack) not in (0, 2) or any(length < 1 for length in stack):
      raise UsageError(
        f"stack={stack}: give () or two positive numbers (batches,"
        " micro-batches)"
      )
    self.num_batches, micro = stack or (1, 1)
    if batch_size < 1 or batch_size % micro:
      raise UsageError(
        f"batch_size={batch_size}: choose a positive multiple of {micro}, the"
        " number of micro-batches"
      )
    if seed < 0:
      raise UsageError(f"seed={seed}: choose 0 or more")
    self.batch_size = batch_size
    self.seed = seed
    self._dataset = dataset
    whole = batch_size // micro
    self._rows = np.arange(whole) if rows is None else rows
    if not len(self._rows) or self._rows[-1] >= whole:
      raise UsageError(
        f"rows={self._rows}: a micro-batch has rows 0..{whole - 1}"
      )
    self._whole_shape = (self.num_batches, micro, whole)
    self._local_shape = (*stack, len(self._rows))
    self._position = 0
    self._cached_permutation: tuple[int, np.ndarray] | None = None

  def __iter__(self) -> Self:
    """Returns itself: there is one position, not one per loop."""
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    """Returns "data", and "cond" (labels) and "noise" where there are any."""
    stop = self._position + self.num_batches
    index = self._samples(
      self._position * self.batch_size, stop * self.batch_size
    )
    index = self.local(index)
    self._position = stop
    batch = {"data": self._dataset.data[index]}
    if self._dataset.noise is not None:
      batch["noise"] = self._dataset.noise[index]
    if self._dataset.label is not None:
      batch["cond"] = self._dataset.label[index]
    return batch

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of one sample."""
    return self._dataset.data.shape[1:]

  def local(self, rows: np.ndarray) -> np.ndarray:
    """Returns this process's part of whole batches, stacked as they are.

    Args:
      rows: The rows of `num_batches` whole batches in order,
        [num_batches * batch_size, ...].
    """
    rest = rows.shape[1:]
    rows = rows.reshape(*self._whole_shape, *rest)[:, :, self._rows]
    return rows.reshape(*self._local_shape, *rest)

  def get_state(self) -> dict[str, int]:
    """Returns the number of batches taken; can be written as JSON."""
    return {"position": self._position}

  def set_state(self, state: Mapping[str, int]) -> None:
    """Continues after as many batches as `state`, of `get_state`, says."""
    position = state.get("position")
    if not isinstance(position, int) or position < 0:
      raise UsageError(
        f"data state {dict(state)}: give {{'position': batches taken}}"
      )
    self._position = position

  def _samples(self, start: int, stop: int) -> np.ndarray:
    """Data-set indices of the stream positions [start, stop)."""
    size = len(self._dataset)
    parts = []
    for epoch in range(start // size, (stop - 1) // size + 1):
      first = epoch * size
      low, high = max(start - first, 0), min(stop - first, size)
      parts.append(self._permutation(epoch)[low:high])
    return np.concatenate(parts)

  def _permutation(self, epoch: int) -> np.ndarray:
    if not self._cached_permutation or self._cached_permutation[0] != epoch:
      generator = np.random.default_rng((self.seed, epoch))
      permutation = generator.permutation(len(self._dataset))
      self._cached_permutation = (epoch, permutation)
    return self._cached_permutation[1]
