"""Samples in tar files, found once and then read by their place.

As in WebDataset, the members of a sample follow each other and have one name up
to the first dot: `0007.jpg`, `0007.cls`. A tar file is walked from header to
header; what it holds stands in an index, with the place of every picture, so
that any sample is read without those before it.
"""

import dataclasses
import itertools
import json
import logging
import pathlib
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, BinaryIO

from jaxflow.data.collected import Label
from jaxflow.data.looking import read_index, some, warn_once, write_index
from jaxflow.data.pictures import SUFFIXES, PictureError
from jaxflow.data.source import NO_LABEL
from jaxflow.errors import UsageError

INDEX = "jaxflow_shards.json"
# What ends the name of a label, where nothing else is said.
CLASS = "cls"

# Python's pickles: reading one may run any program.
_PICKLES = frozenset({"pyd", "pkl", "pickle", "pt", "pth"})
_NAME = re.compile(r"((?:.*/|)[^.]+)\.([^/]*)", re.DOTALL)
# Descriptions that programs add, which are of no sample.
_HIDDEN = re.compile(r"(.*/)?(\.|__[^/]*__(/|$))", re.DOTALL)
# Bytes: of a piece of a header, of a label, of a picture.
_HEADER, _LABEL, _PICTURE = 2**16, 2**20, 2**28
_BLOCK = tarfile.BLOCKSIZE
# How files begin that gzip, bzip2, xz and zstd have packed.
_PACKED = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"
# Shards that take long enough to say so.
_MANY = 2**30
_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Place:
  """Where the picture of a sample is.

  Attributes:
    key: Name of the sample in its tar file.
    shard: Name of the tar file in the set.
    file: Its path.
    offset: First byte of the picture in it.
    length: Its bytes.
    label: Its class, or None.
  """

  key: str
  shard: str
  file: pathlib.Path
  offset: int
  length: int
  label: Label

  def read(self) -> bytes:
    """Return the bytes; raise PictureError if the file is another now."""
    if self.length > _PICTURE:
      raise PictureError(f"it has {self.length} bytes, more than {_PICTURE}")
    try:
      with open(self.file, "rb") as file:
        file.seek(self.offset)
        found = file.read(self.length)
    except OSError as error:
      raise PictureError(error.strerror or str(error)) from error
    if len(found) < self.length:
      raise PictureError("its tar file has become shorter")
    return found


def places_in(
  folder: pathlib.Path,
  shards: Mapping[str, Sequence[int]],
  *,
  image: str | None,
  label: str | None,
  where: str,
  threads: int,
) -> dict[str, Place]:
  """Return the samples of tar files by the names of their pictures.

  Args:
    folder: Their folder, which keeps the index.
    shards: By the name of each file, what changes when it does.
    image: What ends the names of pictures; None for the endings of pictures.
    label: What ends the names of labels, "json/a/b" for a field in JSON; None
      for "cls"; "none" for no labels.
    where: The set, for messages.
    threads: Threads that look at files.

  Raises:
    UsageError: A file is cut short or no tar file, holds pickles, or has no
      such pictures or labels.
  """
  known = read_index(folder / INDEX, "shards")
  asked = [image, label]
  found = {
    name: known[name]
    for name, state in shards.items()
    if _is(known.get(name), [*state, *asked])
  }
  new = [name for name in shards if name not in found]
  if sum(shards[name][0] for name in new) > _MANY:
    _LOGGER.warning(
      "%s: finding the samples in %d files, once", where, len(new)
    )

  def scan(name: str) -> dict[str, Any]:
    start = f"{where}: {name}"
    with open(folder / name, "rb") as file:
      content = _scanned(file, shards[name][0], image, label, start)
    return {"state": [*shards[name], *asked], **content}

  if new:
    with futures.ThreadPoolExecutor(threads) as executor:
      found |= dict(zip(new, executor.map(scan, new), strict=True))
    write_index(folder / INDEX, {"shards": {k: found[k] for k in shards}})
  _say_what_is_left(found, image, label, where)
  return {
    f"{name}/{member}": Place(
      _split(member)[0], name, file, offset, length, value
    )
    for name in shards
    for file in [folder / name]
    for member, offset, length, value in found[name]["samples"]
  }


def _split(member: str) -> tuple[str, str]:
  """Return the name of a sample and what follows its first dot.

  Example:
    >>> _split("a.b/0007.left.png")
    ('a.b/0007', 'left.png')
  """
  found = _NAME.fullmatch(member)
  if found is None:
    raise ValueError(f"{member!r} has no ending")
  return found[1], found[2]


def _is(entry: Any, state: Sequence[Any]) -> bool:
  """Return whether an entry of the index is of a file as it is now."""
  try:
    rows = entry["samples"]
    return (
      entry["state"] == state
      and all(isinstance(x, str) for x in (*entry["left"], *entry["ends"]))
      and all(
        _split(name)
        and min(offset, length) >= 0
        and type(offset) is type(length) is int
        and isinstance(value, int | str | None)
        for name, offset, length, value in rows
      )
    )
  except (LookupError, TypeError, ValueError):
    return False


def _scanned(
  file: BinaryIO, size: int, image: str | None, label: str | None, start: str
) -> dict[str, Any]:
  """Return the samples of a tar file, the endings there, and what is left."""
  samples, left, seen = [], [], set()
  ends: set[str] = set()
  members = _members(file, size, start, left)
  for key, group in itertools.groupby(members, lambda x: x[0]):
    parts: dict[str, tarfile.TarInfo] = {}
    for _, end, member in group:
      if end in parts or key in seen:
        raise UsageError(
          f"{start}: {_plain(member)!r} comes twice, or its sample in two "
          "parts: write the members of a sample once, one after the other"
        )
      parts[end] = member
    seen.add(key)
    ends |= parts.keys()
    pictures = [x for x in parts if _is_picture(x, image)]
    if len(pictures) > 1:
      remedy = f"choose one, data.image={pictures[0]!r} for instance"
      # Numbers are of names with dots: images.0.png, images.1.png.
      if all(x[0].isdigit() for x in pictures):
        instead = f"{key.rpartition('/')[2]}_{pictures[0]}"
        remedy = (
          "a name may have one dot only, before its ending: write "
          f"{instead!r} for instance"
        )
      raise UsageError(
        f"{start}: sample {key!r}, up to the first dot, has pictures "
        f"{some(pictures)}; {remedy}"
      )
    if not pictures:
      left += [member.name for member in parts.values()][:1]
      continue
    member = parts[pictures[0]]
    value = _label(file, parts, label, start)
    samples.append([_plain(member), member.offset_data, member.size, value])
  return {"samples": samples, "ends": sorted(ends), "left": left}


def _members(
  file: BinaryIO, size: int, start: str, left: list[str]
) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
  """Yield key, ending and header of files; others are left.

  Raises:
    UsageError: The file ends too early or is no tar file, or holds a pickle.
  """
  try:
    headers: Any = _Headers(file)
    with tarfile.open(fileobj=headers, mode="r:") as tar:
      for member in tar:
        name = _plain(member)
        found = _NAME.fullmatch(name)
        if found and found[2].rpartition(".")[2].lower() in _PICKLES:
          raise UsageError(
            f"{start} holds {name!r}: a pickle can run any program; write the "
            "file again without"
          )
        if member.size < 0 or tar.offset <= member.offset:
          raise tarfile.ReadError(f"{name!r} has {member.size} bytes")
        if member.isdir() or _HIDDEN.match(name):
          continue
        if not found or not member.isreg() or member.issparse():
          left.append(name)
          continue
        yield found[1], found[2].lower(), member
      _check_end(file, tar.offset, start)
  except (tarfile.TarError, OSError, ValueError) as error:
    if isinstance(error, UsageError):
      raise
    file.seek(0)
    if file.read(8).startswith(_PACKED):
      raise UsageError(f"{start} is packed: unpack it") from error
    raise UsageError(
      f"{start} is cut short or no tar file ({error}; it has {size} bytes): "
      "copy it again"
    ) from error


class _Headers:
  """A file of which tarfile may read headers: nothing large at once."""

  def __init__(self, file: BinaryIO):
    self.seek, self.tell, self._file = file.seek, file.tell, file

  def read(self, size: int) -> bytes:
    """Read a piece; raise ReadError if it is more than a header needs."""
    if not 0 <= size <= _HEADER:
      raise tarfile.ReadError(f"a header of {size} bytes")
    return self._file.read(size)


def _check_end(file: BinaryIO, offset: int, start: str) -> None:
  """Raise UsageError unless zeros, which end a tar file, are all that follows.

  tarfile takes whatever is no header for the end.
  """
  file.seek(offset)
  first = file.read(_BLOCK)
  if len(first) < _BLOCK:
    raise UsageError(
      f"{start} is cut short, it has no end: copy it again; if it is whole, "
      "`truncate -s +1024` ends it"
    )
  if any(first):
    raise UsageError(
      f"{start} is damaged, or cut and joined, at byte {offset}: copy it again"
    )
  for block in iter(lambda: file.read(_LABEL), b""):
    if any(block):
      raise UsageError(
        f"{start} goes on after its end, as joined files do: give its parts as "
        "files of their own"
      )


def _plain(member: tarfile.TarInfo) -> str:
  return member.name.removeprefix("./")


def _is_picture(end: str, image: str | None) -> bool:
  """Return whether what ends a name says that it is the picture."""
  if image is None:
    return f".{end.rpartition('.')[2]}" in SUFFIXES
  return end == image.lower()


def _label(
  file: BinaryIO,
  parts: Mapping[str, tarfile.TarInfo],
  label: str | None,
  start: str,
) -> Label:
  """Return the label of a sample, a number or a name, or None for none."""
  end, *fields = (label or CLASS).split("/")
  member = parts.get(end.lower())
  if label == NO_LABEL or member is None:
    return None
  place = f"{start}: the label {_plain(member)!r}"
  if member.size > _LABEL:
    raise UsageError(
      f"{place} has {member.size} bytes, too many for a class; data.label "
      f"chooses others, {NO_LABEL!r} leaves them out"
    )
  file.seek(member.offset_data)
  text = file.read(member.size)
  try:
    value: Any = text.decode().strip()
    if fields or end.lower() == "json":
      value = json.loads(value)
      for name in fields:
        value = value.get(name)
    elif re.fullmatch(r"-?\d+", value):
      value = int(value)
  except (ValueError, AttributeError, RecursionError) as error:
    raise UsageError(f"{place} cannot be read ({error}): correct it") from error
  if isinstance(value, bool):
    value = int(value)
  if value == "" or not isinstance(value, int | str | None):
    raise UsageError(
      f"{place} is {str(value)[:40]!r}: give the number or name of a class; "
      f"data.label chooses others, {NO_LABEL!r} leaves them out"
    )
  return value


def _say_what_is_left(
  found: Mapping[str, Mapping[str, Any]],
  image: str | None,
  label: str | None,
  where: str,
) -> None:
  """Warn of members that are of no sample; raise UsageError if all are."""
  left = [f"{name}/{x}" for name, part in found.items() for x in part["left"]]
  ends = sorted({x for part in found.values() for x in part["ends"]})
  for option, value in (("image", image), ("label", label)):
    end = (value or "").partition("/")[0].lower()
    if value not in (None, NO_LABEL) and end not in ends:
      raise UsageError(
        f"data.{option}={value!r}: no name in {where} ends so, only with "
        f"{some(ends) or 'nothing'}; choose one"
      )
  values = [x[3] for part in found.values() for x in part["samples"]]
  if (
    label not in (None, NO_LABEL)
    and values
    and not any(x is not None for x in values)
  ):
    raise UsageError(
      f"data.label={label!r}: no sample of {where} has this label; choose "
      f"another, or {NO_LABEL!r}"
    )
  if left:
    count = f"{len(left)} ({some(left)})"
    warn_once(f"{where}: of no sample with a picture, left out: {count}")
