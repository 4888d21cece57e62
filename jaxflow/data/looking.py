"""The first look at a set of pictures, kept in an index.

It decodes every picture once, so that one that is broken is known before
training. What it sees stands in an index: height, width and fault of each
picture, with that by which a change of it is noticed.
"""

import dataclasses
import functools
import json
import logging
import pathlib
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any

from jaxflow.data.pictures import NoPictureError, PictureError, decode
from jaxflow.errors import RunError, UsageError
from jaxflow.files import write_text
from jaxflow.reading import read_json, reading

INDEX = "jaxflow_index.json"

# Height, width and fault: "" for none.
Seen = tuple[int, int, str]

# Names in a message.
_LISTED = 5
# Pictures that take long enough to say so.
_MANY = 5_000
_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture that can be decoded.

  Attributes:
    name: Its name in the set, with slashes.
    height: In pixels, after EXIF's orientation.
    width: As height.
  """

  name: str
  height: int
  width: int


def look(
  where: str,
  index: pathlib.Path,
  states: Mapping[str, Sequence[Any]],
  see: Callable[[str], Seen],
  *,
  max_broken: int,
  threads: int,
) -> list[Picture]:
  """Return the pictures of a set, in its order; look at those that are new.

  Args:
    where: The set, for messages.
    index: File of the index, which is written.
    states: By the name of each file, JSON values that change when it does.
    see: Looks at a file, given its name; "-" begins the fault of one that is no
      picture and was not meant to be one.
    max_broken: Pictures that may be broken.
    threads: Threads that look.

  Raises:
    UsageError: More pictures are broken, or fewer than two are not.
  """
  known = read_index(index, "files")
  found = {
    k: known[k] for k, state in states.items() if _is(known.get(k), state)
  }
  new = [name for name in states if name not in found]
  if new:
    if len(new) > _MANY:
      _LOGGER.warning("%s: looking at %d files, once", where, len(new))
    with futures.ThreadPoolExecutor(threads) as executor:
      for name, seen in zip(new, executor.map(see, new), strict=True):
        found[name] = [*states[name], *seen]
  if new or len(found) < len(known):
    write_index(index, {"files": dict(sorted(found.items()))})
  seen = {name: found[name][-3:] for name in states}
  _check_faults(
    where, {k: fault for k, (_, _, fault) in seen.items()}, max_broken
  )
  pictures = [
    Picture(name, height, width)
    for name, (height, width, fault) in seen.items()
    if not fault
  ]
  if len(pictures) < 2:
    raise UsageError(
      f"{where} holds {'one picture' if pictures else 'no pictures'}, of "
      f"{len(states)} looked at: give two or more"
    )
  return pictures


def seen_in(file: Any, *, other: bool = False) -> Seen:
  """Return height, width and fault of a picture, a path or bytes.

  `other` says that the file may be of another kind without loss.
  """
  try:
    height, width, _ = decode(file, 1).shape
  except NoPictureError as error:
    return 0, 0, f"{'-' * other}{error}"
  except PictureError as error:
    return 0, 0, str(error)
  return height, width, ""


def read_index(path: pathlib.Path, part: str) -> dict[str, Any]:
  """Return a part of an index, {} where there is none."""
  try:
    with reading(path, "it is made again"):
      return read_json(path, {part: dict})[part]
  except (FileNotFoundError, NotADirectoryError):
    return {}
  except UsageError as error:
    warn_once(str(error))
    return {}


def write_index(path: pathlib.Path, parts: Mapping[str, Any]) -> None:
  """Write an index, whole; a folder that cannot be written has none."""
  text = json.dumps({"schema": 1, **parts})
  try:
    write_text(path, text, "every start looks at all pictures again")
  except RunError as error:
    warn_once(str(error))


def state_of(path: pathlib.Path) -> list[int]:
  """Return what changes when a file does."""
  state = path.stat()
  return [state.st_size, state.st_mtime_ns]


def _is(entry: Any, state: Sequence[Any]) -> bool:
  """Return whether an entry of the index is of a file as it is now."""
  if not isinstance(entry, list) or len(entry) != len(state) + 3:
    return False
  *before, height, width, fault = entry
  return (
    before == list(state)
    and all(type(x) is int and x >= 0 for x in (height, width))
    and isinstance(fault, str)
    and (min(height, width) > 0 or fault != "")
  )


def _check_faults(where: str, faults: Mapping[str, str], most: int) -> None:
  """Name files that are left out; raise UsageError if many are broken."""
  foreign = [k for k, fault in faults.items() if fault.startswith("-")]
  broken = [k for k, fault in faults.items() if fault[:1] not in ("", "-")]
  if foreign:
    warn_once(
      f"{where}: no pictures, left out: {len(foreign)} ({some(foreign)})"
    )
  if not broken:
    return
  listed = some([f"{k}: {faults[k]}" for k in broken], "; ")
  count = f"{where}: broken pictures: {len(broken)} ({listed})"
  if len(broken) > most:
    raise UsageError(
      f"{count}; mend or remove them, or set data.max_broken={len(broken)}"
    )
  warn_once(f"{count}, left out as data.max_broken={most} allows")


def some(names: Sequence[str], between: str = ", ") -> str:
  """Return a few names as text.

  Example:
    >>> some(["a", "b", "c", "d", "e", "f"])
    'a, b, c, d, e, ...'
  """
  listed = [*names[:_LISTED], *["..."][: len(names) - _LISTED]]
  return between.join(listed)


@functools.cache
def warn_once(line: str) -> None:
  """Log a warning, once a process."""
  _LOGGER.warning("%s", line)
