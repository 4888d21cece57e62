"""Write a folder shard by shard, or go on at the first that is missing."""

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxflow.data.folders.shard_folder import ShardFiles
from jaxflow.parallel import processes
from jaxflow.parallel.folders import locked


@contextlib.contextmanager
def created_and_locked(
  folder: pathlib.Path, create: Callable[[], object]
) -> Iterator[None]:
  """Hold a folder that the main process makes, or finds, by `create`."""
  with contextlib.ExitStack() as stack:

    def begin():
      create()
      stack.enter_context(locked(folder, "is being filled"))

    processes.once(begin)
    yield


def write_missing_shards(
  files: ShardFiles,
  make: Callable[[int, int], Sequence[np.ndarray]],
  write: Callable[[int, list[np.ndarray]], None],
  *,
  batch_size: int,
  devices: int,
  unit: str,
  log: Callable[[str], None],
) -> bool:
  """Make and write the shards that are missing.

  `make(first, size)` returns arrays [size, ...] from a row on, rows past the
  end included; it is always asked for one size: `batch_size`, or more where the
  devices do not divide it. `write(shard, arrays)` writes one shard. `unit`
  names the rows, in the plural. Return False after an interruption.
  """
  spans = files.spans
  todo = processes.of_main(processes.together(files.missing))
  if not todo:
    log(f"nothing to do: {files.folder} holds all {files.num:,} {unit}")
    return True
  processes.once(lambda: files.check(todo[0]))
  size = min(batch_size, max(stop - start for start, stop in spans))
  size += -size % devices
  with processes.interruption() as interrupted:
    for done, shard in enumerate(todo, 1):
      began, (start, stop) = time.perf_counter(), spans[shard]
      parts: list[Any] = []
      for first in range(start, stop, size):
        if interrupted():
          log(
            f"interrupted: {len(spans) - len(files.missing())} of "
            f"{len(spans)} shards are in {files.folder}; the same command "
            "goes on from there"
          )
          return False
        parts.append([x[: stop - first] for x in make(first, size)])
      arrays = [np.concatenate(x) for x in zip(*parts, strict=True)]
      processes.once(functools.partial(write, shard, arrays))
      pace = (time.perf_counter() - began) / (stop - start)
      left = sum(b - a for a, b in (spans[i] for i in todo[done:]))
      minutes, seconds = divmod(round(pace * left), 60)
      log(
        f"shard {shard + 1}/{len(spans)}: {stop - start:,} {unit}, "
        f"{1 / pace:,.0f} {unit}/s  ETA {minutes}:{seconds:02d}"
      )
  return True
