"""Streams of sampled latents, of noise, of pairs mixed with real data.

Their draws for batch i depend on (seed, i) only, so the position of the stream
below is the whole state, and neither the stack nor the number of processes
changes a batch. Each block of 64 rows has a generator of its own: a
process draws the blocks in which it has rows.
"""

from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import numpy as np

from jaxflow.data import transport
from jaxflow.data.batches import Batches
from jaxflow.data.order import MASK, NOISE, SAMPLE
from jaxflow.errors import UsageError

# Rows that one generator draws.
_BLOCK = 64


class _Stream:
  """A stream on top of another, whose position is its own."""

  def __init__(self, batches: "Stream"):
    self._batches = batches

  def __iter__(self) -> Self:
    """Return itself."""
    return self

  def get_state(self) -> dict[str, int]:
    """Return the number of batches taken."""
    return self._batches.get_state()

  def set_state(self, state: Mapping[str, int]) -> None:
    """Continue after as many batches as `state` says."""
    self._batches.set_state(state)

  def close(self) -> None:
    """Stop the threads of the stream below."""
    self._batches.close()


class SampledBatches(_Stream):
  """Batches whose samples are drawn from normal distributions.

  A batch with "std" becomes one without it, whose "data" are "data" + "std"
  times unit noise; other batches stay as they are.

  Example:
    >>> from jaxflow.data import load
    >>> batches = Batches(load("ring", "train"), batch_size=8, seed=0)
    >>> sorted(next(SampledBatches(batches)))
    ['cond', 'data']
  """

  def __init__(self, batches: Batches):
    super().__init__(batches)
    self.batch_size: int = batches.batch_size
    self.seed: int = batches.seed
    self.shape: tuple[int, ...] = batches.shape
    self.local = batches.local

  @property
  def taken(self) -> int:
    """Batches that the last `next` took."""
    return self._batches.taken

  def __next__(self) -> dict[str, Any]:
    """Return the next batch, drawn."""
    batch = next(self._batches)
    std = batch.pop("std", None)
    if std is not None:
      noise = _draw_normal(self._batches, SAMPLE)
      batch["data"] = batch["data"] + std * noise
    return batch


Stream = Batches | SampledBatches


class FreshNoise(_Stream):
  """Batches whose samples have standard normal noise of their own.

  Example:
    >>> from jaxflow.data import load
    >>> batches = Batches(load("ring", "train"), batch_size=8, seed=0)
    >>> next(FreshNoise(batches))["noise"].shape
    (8, 2)
  """

  def __next__(self) -> dict[str, Any]:
    """Return the next batch and its "noise"."""
    batch = next(self._batches)
    return batch | {"noise": _draw_normal(self._batches, NOISE)}


class Transported(_Stream):
  """Batches with noise that `transport.assignment` gives to rows of a group.

  Groups are consecutive rows of a (micro-)batch, the first of row 0. Each lies
  in one process as a whole.

  Args:
    batches: Batches without noise.
    rows: Rows of a group.
    within_class: Whether noise stays with the class of the row for which it was
      drawn, where there are classes.

  Raises:
    UsageError: Groups do not fit the rows of a process, or conditions are no
      classes.

  Example:
    >>> from jaxflow.data import load
    >>> batches = Batches(load("ring", "train"), batch_size=8, seed=0)
    >>> next(Transported(batches, rows=4))["noise"].shape
    (8, 2)
  """

  def __init__(self, batches: Stream, *, rows: int, within_class: bool = True):
    super().__init__(batches)
    self._fresh = FreshNoise(batches)
    local = batches.local(np.arange(batches.batch_size))
    micro = local.size // local.shape[-1]
    own = local.reshape(micro, -1)[0]
    transport.check_groups(own, batches.batch_size // micro, rows)
    self._rows, self._within_class = rows, within_class
    self._shape = batches.shape

  def __next__(self) -> dict[str, Any]:
    """Return the next batch and its "noise"."""
    batch = next(self._fresh)
    leading = batch["data"].shape[: -len(self._shape) or None]
    data, noise = (
      batch[name].reshape(-1, self._rows, *self._shape)
      for name in ("data", "noise")
    )
    labels: Any = [None] * len(data)
    if self._within_class and "cond" in batch:
      transport.check_classes(batch["cond"], leading)
      labels = batch["cond"].reshape(-1, self._rows)
    moved = [
      z[transport.assignment(x, z, label)]
      for x, z, label in zip(data, noise, labels, strict=True)
    ]
    return batch | {"noise": np.stack(moved).reshape(*leading, *self._shape)}


class Mixed(_Stream):
  """Batches whose rows are pairs, or real data with fresh noise.

  A pair keeps its own noise. Real data never has that of a pair, so a mixture
  trades straight paths for fidelity.

  Args:
    pairs: Batches of pairs.
    real: Batches of real data, of the same size, stack and fields.
    share: Expected share of rows that are pairs.

  Raises:
    UsageError: If the share is not between 0 and 1.

  Example:
    >>> from jaxflow.data import from_arrays
    >>> ones, zeros = np.ones((4, 2)), np.zeros((4, 2))
    >>> pairs = Batches(from_arrays(ones, noise=ones), batch_size=400, seed=0)
    >>> real = Batches(from_arrays(zeros), batch_size=400, seed=0)
    >>> batch = next(Mixed(pairs, real, share=0.5))
    >>> round(float(batch["data"].mean()), 1)
    0.5
  """

  def __init__(self, pairs: Stream, real: Stream, *, share: float):
    if not 0 <= share <= 1:
      raise UsageError(f"share={share}: choose 0 to 1")
    super().__init__(pairs)
    self._real = FreshNoise(real)
    self._share = share

  def __next__(self) -> dict[str, Any]:
    """Return the next mixed batch: "data", "noise" and "cond" if any."""
    pairs, real = next(self._batches), next(self._real)
    draws = _draw(self._batches, lambda g, n: g.random(n), MASK)

    def choose(pair, other):
      shape = (*draws.shape, *(1,) * (pair.ndim - draws.ndim))
      return np.where(draws.reshape(shape) < self._share, pair, other)

    real = {name: real[name] for name in pairs}
    return jax.tree.map(choose, pairs, real)

  def set_state(self, state: Mapping[str, int]) -> None:
    """Continue both streams after as many batches as `state` says."""
    super().set_state(state)
    self._real.set_state(state)

  def close(self) -> None:
    """Stop the threads of both streams."""
    super().close()
    self._real.close()


def _draw_normal(batches: Stream, purpose: int) -> np.ndarray:
  """Draw standard normal noise, float32, for the batches taken last."""
  return _draw(
    batches,
    lambda g, n: g.standard_normal((n, *batches.shape), np.float32),
    purpose,
  )


def _draw(
  batches: Stream,
  draw: Callable[[np.random.Generator, int], np.ndarray],
  purpose: int,
) -> np.ndarray:
  """Draw this process's rows of the batches taken last, block by block.

  `draw` draws so many rows of a block; `purpose` tells apart the draws for one
  batch.
  """
  first = batches.get_state()["position"] - batches.taken
  size = batches.batch_size
  index = batches.local(np.arange(batches.taken * size))
  number, row = np.divmod(index.ravel(), size)
  block = row // _BLOCK
  # Rows ascend, so those of a block are neighbours.
  starts = np.flatnonzero(np.diff(number * size + block, prepend=-1))
  parts = []
  for rows, i in zip(np.split(row, starts[1:]), starts, strict=True):
    seed = batches.seed, first + int(number[i]), purpose, int(block[i])
    begin = block[i] * _BLOCK
    drawn = draw(np.random.default_rng(seed), min(_BLOCK, size - begin))
    parts.append(drawn[rows - begin])
  drawn = np.concatenate(parts)
  return drawn.reshape(*index.shape, *drawn.shape[1:])
