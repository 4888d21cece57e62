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
  check: Callable[[list[str]], None],
  log: Callable[[str], None],
) -> bool:
  """Make and write the shards that are missing.

  `make(first, size)` returns arrays [size, ...] from a row on, rows past the
  end included; it is always asked for one size: `batch_size`, or more where the
  devices do not divide it. `write(shard, arrays)` writes one shard;
  `check(names)` looks at those that are there. `unit` names the rows, in the
  plural. Return False after an interruption.
  """
  found = processes.together(files.found)
  processes.once(lambda: check(found))
  there = processes.of_main(len(found))
  if there == files.count:
    log(f"nothing to do: {files.folder} holds all {files.num:,} {unit}")
    return True
  # Once: each look goes through all files. The lock admits one that writes.
  processes.once(files.remove_drafts)
  size = min(batch_size, files.size, files.num)
  size += -size % devices
  with processes.interruption() as interrupted:
    for shard in range(files.count):
      if processes.of_main(files.path(shard).exists()):
        continue
      processes.once(functools.partial(files.check, shard))
      began, (start, stop) = time.perf_counter(), files.span(shard)
      parts: list[Any] = []
      for first in range(start, stop, size):
        if interrupted():
          log(
            f"interrupted: {there} of {files.count} shards are in "
            f"{files.folder}; the same command goes on from there"
          )
          return False
        parts.append([x[: stop - first] for x in make(first, size)])
      arrays = [np.concatenate(x) for x in zip(*parts, strict=True)]
      processes.once(functools.partial(write, shard, arrays))
      there += 1
      pace = (time.perf_counter() - began) / (stop - start)
      left = min((files.count - there) * files.size, files.num - stop)
      minutes, seconds = divmod(round(pace * left), 60)
      log(
        f"shard {shard + 1}/{files.count}: {stop - start:,} {unit}, "
        f"{1 / pace:,.0f} {unit}/s  ETA {minutes}:{seconds:02d}"
      )
  return True
