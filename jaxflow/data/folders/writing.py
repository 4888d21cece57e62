"""Fill a folder shard by shard, or go on at the first that is missing."""

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from jaxflow.parallel import processes
from jaxflow.parallel.folders import locked


class Store(Protocol):
  """A folder of shards."""

  @property
  def folder(self) -> pathlib.Path:
    """The folder."""
    ...

  @property
  def shards(self) -> Sequence[tuple[int, int]]:
    """First row of every shard, and the row after its last."""
    ...

  def missing(self) -> list[int]:
    """Return the numbers of the shards that are not there."""
    ...


@contextlib.contextmanager
def claimed(out: pathlib.Path, create: Callable[[], object]) -> Iterator[None]:
  """Hold a folder that the main process creates.

  Args:
    out: The folder.
    create: Makes it, or finds it.
  """
  with contextlib.ExitStack() as stack:

    def begin():
      create()
      stack.enter_context(locked(out, "--out={} is being filled"))

    processes.once(begin)
    yield


def fill(
  store: Store,
  make: Callable[[int, int], Sequence[np.ndarray]],
  write: Callable[[int, list[np.ndarray]], None],
  *,
  batch_size: int,
  devices: int,
  unit: str,
  say: Callable[[str], None],
) -> bool:
  """Make the shards that are missing.

  Args:
    store: The folder.
    make: `make(first, size) -> arrays [size, ...]`, from a row on; always of
      one size, rows past the end included.
    write: `write(shard, arrays)` writes one, whole or not at all; called by
      the main process.
    batch_size: Rows at a time; more where the devices do not divide it.
    devices: Devices among which rows are divided.
    unit: What a row is, in the plural.
    say: Prints a line.

  Returns:
    Whether all shards are there; False after an interruption.
  """
  shards = store.shards
  todo = processes.of_main(processes.together(store.missing))
  if not todo:
    say(f"nothing to do: {store.folder} holds all {shards[-1][1]:,} {unit}")
    return True
  size = min(batch_size, max(stop - start for start, stop in shards))
  size += -size % devices
  with processes.interruption() as interrupted:
    for done, shard in enumerate(todo, 1):
      began, (start, stop) = time.perf_counter(), shards[shard]
      parts: list[Any] = []
      for first in range(start, stop, size):
        if interrupted():
          say(
            f"interrupted: {len(shards) - len(store.missing())} of "
            f"{len(shards)} shards are in {store.folder}; the same command "
            "goes on from there"
          )
          return False
        parts.append([x[: stop - first] for x in make(first, size)])
      arrays = [np.concatenate(x) for x in zip(*parts, strict=True)]
      processes.once(functools.partial(write, shard, arrays))
      pace = (time.perf_counter() - began) / (stop - start)
      left = sum(b - a for a, b in (shards[i] for i in todo[done:]))
      minutes, seconds = divmod(round(pace * left), 60)
      say(
        f"shard {shard + 1}/{len(shards)}: {stop - start:,} {unit}, "
        f"{1 / pace:,.0f} {unit}/s  ETA {minutes}:{seconds:02d}"
      )
  return True
