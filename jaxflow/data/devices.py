"""Transfer of host batches to global arrays on the devices."""

import collections
import time
from concurrent import futures
from typing import Any, Protocol, Self

import jax

from jaxflow.errors import UsageError
from jaxflow.types import PyTree


class ResumableIterator(Protocol):
  """An iterator over host batches that can continue where it was."""

  def __next__(self) -> PyTree:
    """Return the next batch."""
    ...

  def get_state(self) -> Any:
    """Return a state from which `set_state` continues."""
    ...

  def set_state(self, state: Any) -> None:
    """Continue from a state of `get_state`."""
    ...

  def close(self) -> None:
    """Stop the threads."""
    ...


def to_devices(batch: PyTree, sharding: jax.sharding.Sharding) -> PyTree:
  """Join the processes' host arrays into global arrays on the devices.

  Args:
    batch: Pytree of this process's rows, as NumPy arrays.
    sharding: Where each global array goes; one for all leaves. Leaves of a
      higher rank than its specification are not cut along further axes.

  Raises:
    UsageError: The devices do not divide an array.

  Example:
    >>> import numpy as np
    >>> device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    >>> to_devices({"data": np.ones((4, 2))}, device)["data"].shape
    (4, 2)
  """

  def put(leaf):
    try:
      return jax.make_array_from_process_local_data(sharding, leaf)
    except ValueError as error:
      raise UsageError(
        f"batch_size: this process's array of shape {leaf.shape} cannot be"
        f" laid out as {sharding}; choose a size that the devices divide"
      ) from error

  return jax.tree.map(put, batch)


class Prefetch:
  """Iterator that moves batches to the devices ahead of their use.

  A thread takes them from the iterator and starts their transfer while the
  caller works on the batch before. From here on the iterator belongs to this
  one: its own state runs up to `size - 1` batches ahead.

  Args:
    iterator: Gives host batches, for example `Batches`.
    sharding: As in `to_devices`.
    size: Batches on the devices at once, counting the one handed out.

  Attributes:
    waited: Seconds that `next` has waited for batches in all.

  Example:
    >>> from jaxflow.data import Batches, load
    >>> batches = Batches(load("ring", "train"), batch_size=8, seed=0)
    >>> device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    >>> stream = Prefetch(batches, device)
    >>> next(stream)["data"].shape, stream.get_state()
    ((8, 2), {'position': 1})
    >>> stream.close()
  """

  def __init__(
    self,
    iterator: ResumableIterator,
    sharding: jax.sharding.Sharding,
    size: int = 2,
  ):
    if size < 1:
      raise UsageError(f"size={size}: choose 1 or more")
    self.waited = 0.0
    self._iterator = iterator
    self._sharding = sharding
    self._size = size
    self._state = iterator.get_state()
    # One thread: batches are read in order, and the state goes with them.
    self._executor = futures.ThreadPoolExecutor(1, "jaxflow-prefetch")
    self._queue: collections.deque[futures.Future] = collections.deque()

  def __iter__(self) -> Self:
    """Return itself."""
    return self

  def __next__(self) -> PyTree:
    """Return the next batch on the devices, or raise StopIteration."""
    self._fill()
    began = time.perf_counter()
    try:
      transferred = self._queue[0].result()
    finally:
      self.waited += time.perf_counter() - began
    if transferred is None:
      raise StopIteration
    batch, self._state = transferred
    self._queue.popleft()
    return batch

  @property
  def ready(self) -> bool:
    """Whether `next` would return without waiting."""
    self._fill()
    return self._queue[0].done()

  def get_state(self) -> Any:
    """Return the iterator's state after the last batch handed out."""
    return self._state

  def set_state(self, state: Any) -> None:
    """Continue from `state`; batches on their way are dropped."""
    for future in self._queue:
      future.cancel()
    futures.wait(self._queue)
    self._queue.clear()
    self._iterator.set_state(state)
    self._state = state

  def close(self) -> None:
    """Stop the thread, and the iterator; no batch comes after this."""
    self._executor.shutdown(wait=False, cancel_futures=True)
    # Once so that a batch under way ends soon, once for what it has started.
    self._iterator.close()
    self._executor.shutdown()
    self._iterator.close()

  def _fill(self) -> None:
    while len(self._queue) < self._size:
      self._queue.append(self._executor.submit(self._transfer))

  def _transfer(self) -> tuple[PyTree, Any] | None:
    try:
      batch = next(self._iterator)
    except StopIteration:
      return None
    return to_devices(batch, self._sharding), self._iterator.get_state()
