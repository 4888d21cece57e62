"""An endless, resumable stream of shuffled batches.

`Order` says which samples are in batch i, whoever reads them; so the number of
batches taken is the whole state. Threads that read ahead take pieces of
batches: which rows a piece holds follows from its number, so neither the
number of threads nor their speed changes a batch.
"""

from collections.abc import Mapping
from typing import Any, Self

import jax
import numpy as np

from jaxflow.conditions import joined
from jaxflow.data.order import GroupedOrder, Order
from jaxflow.data.source import Source, labels_of
from jaxflow.errors import UsageError

# Most rows that a thread reads at once: few, so that all share a batch.
_PIECE = 32
# Pieces that wait for each thread beside the one that it is reading.
_WAITING = 2


class Batches:
  """Iterates over shuffled batches of a data set, for ever.

  Args:
    source: The data set, of N samples.
    batch_size: Samples B of one batch over all processes; may exceed N.
    seed: Non-negative seed of the permutations.
    stack: () for one batch [B, ...] at a time, or (K, A) for K consecutive
      batches, each cut into A contiguous micro-batches: [K, A, B / A, ...].
    rows: Which rows of every (micro-)batch to hand out, ascending: those that
      this process's devices hold; default: all.
    flip: Mirror half of the images left to right, at random.
    cut: Cut the images of a source that can, one with a method `take_at`, at
      random places.
    group: Rows of a class that stand together, in batches of such groups; None
      shuffles all samples.
    threads: Threads that read ahead, for sources that are slow to read; 0
      reads when a batch is asked for.
    end: Number of batches after which the stream ends; default: never.

  One `next` takes the batches up to the next multiple of K or to the end, so
  the first and the last may have fewer than K.

  Attributes:
    taken: Batches that the last `next` took.

  Raises:
    UsageError: The sizes do not divide, or an argument is out of range.

  Example:
    >>> from jaxflow.data import load
    >>> batches = Batches(load("ring", "train"), batch_size=32, seed=0)
    >>> {name: array.shape for name, array in next(batches).items()}
    {'cond': (32,), 'data': (32, 2)}
    >>> batches.get_state()
    {'position': 1}
  """

  def __init__(
    self,
    source: Source,
    *,
    batch_size: int,
    seed: int,
    stack: tuple[int, ...] = (),
    rows: np.ndarray | None = None,
    flip: bool = False,
    cut: bool = False,
    group: int | None = None,
    threads: int = 0,
    end: int | None = None,
  ):
    if len(stack) not in (0, 2) or any(length < 1 for length in stack):
      raise UsageError(
        f"stack={stack}: give () or two positive numbers (batches,"
        " micro-batches)"
      )
    self._stack, micro = stack or (1, 1)
    if batch_size < 1 or batch_size % micro:
      raise UsageError(
        f"batch_size={batch_size}: choose a positive multiple of {micro}, the"
        " number of micro-batches"
      )
    for name, value in (("seed", seed), ("threads", threads)):
      if value < 0:
        raise UsageError(f"{name}={value}: choose 0 or more")
    if flip and len(source.shape) != 3:
      raise UsageError(
        f"data.flip=True: samples of data.name={source.name!r} have shape"
        f" {source.shape}, only images [H, W, C] can be mirrored; set it to"
        " False"
      )
    if cut and not hasattr(source, "take_at"):
      raise UsageError(
        f"data.crop='random': data.name={source.name!r} has no pictures to cut;"
        " set it to 'centre'"
      )
    self.batch_size = batch_size
    self.seed = seed
    self._source: Any = source
    whole = batch_size // micro
    self._rows = np.arange(whole) if rows is None else rows
    if not len(self._rows) or self._rows[-1] >= whole:
      raise UsageError(
        f"rows={self._rows}: a micro-batch has rows 0..{whole - 1}"
      )
    self._whole_shape = (-1, micro, whole)
    self._local_shape = (*(-1, *stack[1:])[: len(stack)], len(self._rows))
    self._flip, self._cut = flip, cut
    self._threads = threads
    # Largest piece that cuts this process's rows of a batch evenly.
    local = micro * len(self._rows)
    self._piece = max(n for n in range(1, _PIECE + 1) if local % n == 0)
    self._pieces = local // self._piece
    self._reader: Any = None
    if group is None:
      self._order = Order(len(source), batch_size=batch_size, seed=seed)
    else:
      self._order = GroupedOrder(
        labels_of(source),
        num_classes=source.num_classes,
        group=group,
        batch_size=batch_size,
        seed=seed,
      )
    self._end = end
    self._position = self.taken = 0

  def __iter__(self) -> Self:
    """Return itself: there is one position, not one per loop."""
    return self

  def __next__(self) -> dict[str, Any]:
    """Return "data", and "cond" and "noise" where there are any."""
    count = self._stack - self._position % self._stack
    if self._end is not None:
      count = min(count, self._end - self._position)
    if count < 1:
      raise StopIteration
    if self._threads:
      batch = self._read_in_threads(count)
    else:
      batch = self._read(self._position, count)
    self._position += count
    self.taken = count
    return jax.tree.map(
      lambda x: x.reshape(*self._local_shape, *x.shape[1:]), batch
    )

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of one sample."""
    return self._source.shape

  def local(self, rows: np.ndarray) -> np.ndarray:
    """Return this process's part of whole batches, stacked as `next` does.

    Args:
      rows: Rows of `num_batches` whole batches [num_batches * batch_size, ...].
    """
    return self._own(rows).reshape(*self._local_shape, *rows.shape[1:])

  def get_state(self) -> dict[str, int]:
    """Return the number of batches taken; can be written as JSON."""
    return {"position": self._position}

  def set_state(self, state: Mapping[str, int]) -> None:
    """Continue after as many batches as `state`, of `get_state`, says."""
    position = state.get("position")
    if not isinstance(position, int) or position < 0:
      raise UsageError(
        f"data state {dict(state)}: give {{'position': batches taken}}"
      )
    self.close()
    self._position = position

  def close(self) -> None:
    """Stop the threads; `next` would start new ones."""
    if self._reader is not None:
      self._reader.close()
    self._reader = None

  def _read_in_threads(self, batches: int) -> dict[str, Any]:
    """Return this process's rows of the next batches, from the threads."""
    if self._reader is None:
      # Half a second to import, which data in memory need not wait for.
      import grain

      # The stream has no end, but grain wants one.
      numbers = grain.MapDataset.range(self._position * self._pieces, 2**62)
      options = grain.ReadOptions(
        num_threads=self._threads,
        prefetch_buffer_size=_WAITING * self._threads,
      )
      pieces = numbers.map(self._read_piece).to_iter_dataset(options)
      self._reader = iter(pieces)
    count = batches * self._pieces
    try:
      parts = [next(self._reader) for _ in range(count)]
    except BaseException:
      # Half a batch is lost: threads that start anew begin with it.
      self.close()
      raise
    return joined(parts)

  def _read_piece(self, number: int) -> dict[str, Any]:
    batch, piece = divmod(number, self._pieces)
    start = piece * self._piece
    return self._read(batch, 1, slice(start, start + self._piece))

  def _read(
    self, first: int, count: int, part: slice = slice(None)
  ) -> dict[str, Any]:
    """Read a part of this process's rows of consecutive batches."""
    index = self._own(self._order.samples(first, count))[part]
    if self._cut:
      places = self._own(self._order.places(first, count))[part]
      rows = self._source.take_at(index, places)
    else:
      rows = self._source.take(index)
    if self._flip:
      if "std" in rows:
        raise UsageError(
          "data.flip=True: mirrored latents are not those of mirrored images;"
          " set it to False, and encode with --flip"
        )
      mirrored = self._own(self._order.mirrored(first, count))[part]
      for name in rows.keys() - {"cond"}:  # Conditions have no sides.
        rows[name][mirrored] = rows[name][mirrored, :, ::-1]
    return rows

  def _own(self, rows: np.ndarray) -> np.ndarray:
    """Return this process's rows of whole batches, [number, ...]."""
    rest = rows.shape[1:]
    rows = rows.reshape(*self._whole_shape, *rest)[:, :, self._rows]
    return rows.reshape(-1, *rest)
