"""Pictures in a folder of the user: their classes, their splits, an index.

The first look decodes every picture once, so that one that is broken is known
before training. What it sees stands in the folder's index: height, width and
fault of each file, with the size and the time by which a change is noticed.
"""

import dataclasses
import functools
import json
import logging
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

from jaxflow.data.images import Images
from jaxflow.data.pictures import (
  SUFFIXES,
  WHITE,
  Colour,
  NoPictureError,
  PictureError,
  decode,
)
from jaxflow.data.source import NoSplitError, Source, rows_of_split
from jaxflow.errors import RunError, UsageError
from jaxflow.files import write_text
from jaxflow.reading import read_json, reading

INDEX = "jaxflow_index.json"
# Share of the pictures that are held out, where nothing else is said.
TEST_SHARE = 0.1

# Folders that are splits, where there are no others beside them.
_TRAIN, _TEST = ("train",), ("test", "val", "valid", "validation")
# Files that a message names.
_LISTED = 5
# Files that take long enough to say so.
_MANY = 5_000
_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture that can be decoded.

  Attributes:
    name: Its path in the folder, with slashes.
    height: In pixels, after EXIF's orientation.
    width: As height.
  """

  name: str
  height: int
  width: int


def load(
  split: str,
  *,
  dir: str | None,
  size: int | None = None,
  channels: int | None = None,
  background: Colour = WHITE,
  crop: str = "centre",
  conditional: bool = True,
  splits: Mapping[str, str | None] = {},
  test_share: float | None = None,
  max_broken: int = 0,
  ram_gib: float = 4.0,
  threads: int = 1,
) -> Source:
  """Open one split of the pictures in `dir`, as images in [-1, 1].

  The arguments are those of `jaxflow.data.load`.
  """
  if not dir:
    raise UsageError(
      "data.dir=None: data.name='folder' needs the folder of the pictures; set "
      "data.dir to it"
    )
  folder = pathlib.Path(dir)
  pictures = _look(folder, max_broken, threads)
  parts = _splits(folder, pictures, splits, test_share)
  names = _class_names(parts) if conditional else ()
  if split not in parts:
    raise NoSplitError(
      f"data.dir={dir!r} has no {split} split, only {', '.join(parts)}"
    )
  chosen, classes = parts[split], {name: i for i, name in enumerate(names)}
  if conditional:
    _say_unlabelled(folder, chosen, classes)
  images = Images(
    records=_Records(
      folder,
      [picture.name for picture, _ in chosen],
      [classes.get(name, -1) for _, name in chosen],
      channels or 3,
      background,
    ),
    name="folder",
    split=split,
    shape=(*_size(pictures, dir, size), channels or 3),
    num_classes=len(names),
    class_names=names,
    remedy="mend or remove it, and start again",
  )
  return images.fitting(ram_gib, threads, crop)


@dataclasses.dataclass(frozen=True)
class _Records:
  """Decodes pictures by their number."""

  folder: pathlib.Path
  names: Sequence[str]
  labels: Sequence[int]
  channels: int
  background: Colour

  def __len__(self) -> int:
    return len(self.names)

  def __getitem__(self, number: int) -> dict[str, Any]:
    path = self.folder / self.names[number]
    try:
      image = decode(path, self.channels, background=self.background)
    except PictureError as error:
      raise PictureError(f"{path}: {error}") from error
    return {"image": image, "label": self.labels[number]}


def _look(folder: pathlib.Path, max_broken: int, threads: int) -> list[Picture]:
  """Return the pictures of a folder, by name; look at those that are new."""
  where = f"data.dir={str(folder)!r}"
  try:
    files = {name: _state(path) for name, path in sorted(_files(folder))}
  except OSError as error:
    raise UsageError(
      f"{where} cannot be read ({error.strerror}): give a folder of pictures"
    ) from error
  known = _read_index(folder)
  found = {
    k: known[k] for k, state in files.items() if _is(known.get(k), state)
  }
  new = [name for name in files if name not in found]
  if new:
    if len(new) > _MANY:
      _LOGGER.warning("%s: looking at %d files, once", where, len(new))
    paths = (folder / name for name in new)
    with futures.ThreadPoolExecutor(threads) as executor:
      for name, seen in zip(new, executor.map(_see, paths), strict=True):
        found[name] = [*files[name], *seen]
  if new or len(found) < len(known):
    _write_index(folder, found)
  pictures = [
    Picture(name, height, width)
    for name in files
    for _, _, height, width, fault in [found[name]]
    if not fault
  ]
  _check_faults(where, {k: found[k][-1] for k in files}, max_broken)
  if len(pictures) < 2:
    raise UsageError(
      f"{where} holds {len(pictures)} pictures in {len(files)} files: give a "
      f"folder with two or more, {', '.join(sorted(SUFFIXES))}"
    )
  return pictures


def _files(folder: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
  """Yield the files in a folder and in those inside, but for hidden ones."""
  waiting, seen = [(folder, "")], set()
  while waiting:
    place, start = waiting.pop()
    state = place.stat()
    if (state.st_dev, state.st_ino) in seen:  # A link to a folder around it.
      continue
    seen.add((state.st_dev, state.st_ino))
    with os.scandir(place) as entries:
      for entry in entries:
        if entry.name.startswith(".") or entry.name == INDEX:
          continue
        path, name = pathlib.Path(entry.path), f"{start}{entry.name}"
        if entry.is_dir():
          waiting.append((path, f"{name}/"))
        elif entry.is_file():
          yield name, path


def _state(path: pathlib.Path) -> list[int]:
  """Return what changes when a file does."""
  state = path.stat()
  return [state.st_size, state.st_mtime_ns]


def _is(entry: Any, state: list[int]) -> bool:
  """Return whether an entry of the index is of a file as it is now."""
  return (
    isinstance(entry, list)
    and len(entry) == 5
    and entry[:2] == state
    and all(type(x) is int and x >= 0 for x in entry[2:4])
    and isinstance(entry[4], str)
    and (min(entry[2:4]) > 0 or entry[4] != "")
  )


def _see(path: pathlib.Path) -> tuple[int, int, str]:
  """Return height, width and fault of a file; "-" before those of others."""
  try:
    height, width, _ = decode(path, 1).shape
  except NoPictureError as error:
    # A file without a picture in it, and without the name of one, is no loss.
    foreign = path.suffix.lower() not in SUFFIXES
    return 0, 0, f"{'-' * foreign}{error}"
  except PictureError as error:
    return 0, 0, str(error)
  return height, width, ""


def _read_index(folder: pathlib.Path) -> dict[str, Any]:
  path = folder / INDEX
  try:
    with reading(path, "it is made again"):
      return read_json(path, {"files": dict})["files"]
  except (FileNotFoundError, NotADirectoryError):
    return {}
  except UsageError as error:
    _warn_once(str(error))
    return {}


def _write_index(folder: pathlib.Path, files: Mapping[str, Any]) -> None:
  """Write the index, whole; a folder that cannot be written has none."""
  text = json.dumps({"schema": 1, "files": dict(sorted(files.items()))})
  try:
    write_text(folder / INDEX, text, "every start looks at all pictures again")
  except RunError as error:
    _warn_once(str(error))


def _check_faults(where: str, faults: Mapping[str, str], most: int) -> None:
  """Name files that are left out; raise UsageError if many are broken."""
  foreign = [k for k, fault in faults.items() if fault.startswith("-")]
  broken = [k for k, fault in faults.items() if fault[:1] not in ("", "-")]
  if foreign:
    _warn_once(
      f"{where}: no pictures, left out: {len(foreign)} ({_some(foreign)})"
    )
  if not broken:
    return
  listed = _some([f"{k}: {faults[k]}" for k in broken], "; ")
  count = f"{where}: broken pictures: {len(broken)} ({listed})"
  if len(broken) > most:
    raise UsageError(
      f"{count}; mend or remove them, or set data.max_broken={len(broken)}"
    )
  _warn_once(f"{count}, left out as data.max_broken={most} allows")


def _splits(
  folder: pathlib.Path,
  pictures: Sequence[Picture],
  given: Mapping[str, str | None],
  test_share: float | None,
) -> dict[str, list[tuple[Picture, str]]]:
  """Return the pictures of each split, with the names of their classes.

  The name is "" for pictures that are in no folder of the root of a split.
  """
  tops = {x.name.partition("/")[0] if "/" in x.name else "" for x in pictures}
  folders = {k: v for k, v in given.items() if v}
  if not folders and "" not in tops and tops <= {*_TRAIN, *_TEST}:
    test = [x for x in _TEST if x in tops][:1]
    folders = {"train": _TRAIN[0]} if _TRAIN[0] in tops else {}
    folders |= {"test": test[0]} if test and folders else {}
  for name, inside in folders.items():
    if inside not in tops:
      raise UsageError(
        f"data.split.{name}={inside!r}: data.dir={str(folder)!r} has no folder "
        f"{inside!r} with pictures in it, only {_some(sorted(tops - {''}))}"
      )
  if folders and "train" not in folders:
    raise UsageError(
      f"data.split.test={folders['test']!r}: name the folder of the other "
      "pictures, data.split.train"
    )
  if folders and test_share is not None:
    folders = {"train": folders["train"]}
  unused = sorted(tops - {*folders.values()}) if folders else []
  if unused:
    _warn_once(
      f"data.dir={str(folder)!r}: in no split: {_some(unused)}; "
      "data.split.train and data.split.test name others"
    )
  if "test" in folders:
    return {k: _classed(pictures, f"{v}/") for k, v in folders.items()}
  whole = _classed(pictures, f"{folders['train']}/" if folders else "")
  share = TEST_SHARE if test_share is None else test_share
  found = {}
  for name in ("train", "test"):
    try:
      rows = rows_of_split(
        (picture.name for picture, _ in whole), name, share, f"{folder}"
      )
      found[name] = [whole[row] for row in rows]
    except NoSplitError:
      continue
  return found


def _classed(
  pictures: Iterable[Picture], start: str
) -> list[tuple[Picture, str]]:
  """Return the pictures below a folder, with the first folder inside of it."""
  below = [x for x in pictures if x.name.startswith(start)]
  inside = [x.name.removeprefix(start).rpartition("/")[0] for x in below]
  names = [name.partition("/")[0] for name in inside]
  return list(zip(below, names, strict=True))


def _class_names(
  parts: Mapping[str, Sequence[tuple[Picture, str]]],
) -> tuple[str, ...]:
  """Return the names of the classes, in order; one folder is no class."""
  names = {name for part in parts.values() for _, name in part} - {""}
  return tuple(sorted(names)) if len(names) > 1 else ()


def _say_unlabelled(
  folder: pathlib.Path,
  part: Sequence[tuple[Picture, str]],
  classes: Mapping[str, int],
) -> None:
  alone = [picture.name for picture, name in part if name not in classes]
  if alone and classes:
    _warn_once(
      f"data.dir={str(folder)!r}: in no class folder, used without a label: "
      f"{len(alone)} ({_some(alone)})"
    )


def _size(
  pictures: Sequence[Picture], dir: str, size: int | None
) -> tuple[int, int]:
  """Return height and width of the images."""
  if size is not None:
    return size, size
  sizes = {(x.height, x.width): x.name for x in pictures}
  if len(sizes) > 1:
    (low, small), (high, large) = min(sizes.items()), max(sizes.items())
    raise UsageError(
      f"data.size=None: the pictures of data.dir={dir!r} vary in size, "
      f"{low[0]}x{low[1]} ({small}) and {high[0]}x{high[1]} ({large}) for "
      "instance; set data.size=64, for instance, to crop and scale them"
    )
  return next(iter(sizes))


def _some(names: Sequence[str], between: str = ", ") -> str:
  listed = [*names[:_LISTED], *["..."][: len(names) - _LISTED]]
  return between.join(listed)


@functools.cache
def _warn_once(line: str) -> None:
  _LOGGER.warning("%s", line)
