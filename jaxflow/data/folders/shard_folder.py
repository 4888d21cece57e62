"""Folders of shards, each described by a JSON file."""

import abc
import dataclasses
import json
import pathlib
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from jaxflow.errors import UsageError
from jaxflow.files import SUMS, changed_file, probe, replace_file, writing
from jaxflow.parallel import processes
from jaxflow.reading import read_json, reading


@dataclasses.dataclass(frozen=True)
class ShardFolder(abc.ABC):
  """A folder of shards; `create` begins one, `open` reads one.

  The description is written first. It decides all rows of all shards. Every
  file has its SHA-256 in `SHA256SUMS`.

  Attributes:
    FILE: Name of the JSON file with the description.
    COMMAND: Command of jaxflow that makes such folders.
    FLAGS: Fields that are flags of the command, in the order of a command.
    HOLDS: What a description must hold, as `reading.checked` takes it.
    ARRAYS: Names of the arrays of a row, all of the description's `shape`.
    folder: The folder.
    description: Contents of the JSON file.
  """

  FILE: ClassVar[str]
  COMMAND: ClassVar[str]
  FLAGS: ClassVar[tuple[str, ...]]
  HOLDS: ClassVar[Mapping[str, Any]]
  ARRAYS: ClassVar[tuple[str, ...]]

  folder: pathlib.Path
  description: Mapping[str, Any]

  @classmethod
  def create(cls, folder: pathlib.Path, description: Mapping[str, Any]) -> Self:
    """Write the description, or find the same one in the folder.

    Raises:
      UsageError: If the folder has another description, holds other files, or
        cannot be written.
    """
    # JSON turns tuples into lists, and the two are compared.
    made = cls(folder, json.loads(json.dumps(dict(description))))
    try:
      folder.mkdir(parents=True, exist_ok=True)
      if not (folder / cls.FILE).exists():
        # A process that was killed at once has left these.
        if any(p.suffix != ".tmp" and p.name != SUMS for p in folder.iterdir()):
          raise UsageError(
            f"folder={folder} is not empty and holds no {cls.FILE}: give a new "
            "folder"
          )
        probe(folder / cls.FILE)
        made.write_description()
        return made
    except OSError as error:
      raise UsageError(
        f"folder={folder} cannot be written ({error.strerror}): give another "
        "folder, or make it writable"
      ) from error
    found = cls.open(folder)
    both = found.description, made.description
    old, new = map(cls.identity, both)
    # A flag explains the values that follow from it, so flags come first.
    for name in (*cls.FLAGS, *sorted(new)):
      if old.get(name) != new.get(name):
        (argument, was), (_, now) = (cls.argument(name, d) for d in both)
        raise UsageError(
          f"folder={folder} was made with {argument}={was}, not {now}: give "
          "another --out, or the old value"
        )
    return found

  @classmethod
  def open(cls, folder: pathlib.Path) -> Self:
    """Read the description; raise UsageError if the folder has no valid one."""
    where = f"folder={str(folder)!r}: {cls.FILE}"
    try:
      with reading(where, "restore it from a copy, or give another folder"):
        description = read_json(folder / cls.FILE, dict(cls.HOLDS))
    except (FileNotFoundError, NotADirectoryError) as error:
      raise UsageError(
        f"folder={str(folder)!r} holds no {cls.FILE}: give a folder that "
        f"`jaxflow {cls.COMMAND}` has made"
      ) from error
    if changed_file(folder, [cls.FILE]):
      raise UsageError(
        f"{where} differs from {SUMS}: restore it from a copy, or delete its "
        "lines there if the change is yours"
      )
    return cls(folder, description)

  @staticmethod
  @abc.abstractmethod
  def identity(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a description that decides the rows."""

  @staticmethod
  @abc.abstractmethod
  def argument(name: str, description: Mapping[str, Any]) -> tuple[str, Any]:
    """Return how the user calls a name of the description, and its value."""

  def extra_flags(self) -> list[str]:
    """Return the flags of the command beside `FLAGS`."""
    return []

  def command(self) -> str:
    """Return the command that makes the missing shards, quoted for a shell."""
    given = {name: self.description.get(name) for name in self.FLAGS}
    flags = [f"--{k}={v}" for k, v in given.items() if v is not None]
    flags += [*self.extra_flags(), f"--out={self.folder}"]
    return shlex.join(["jaxflow", self.COMMAND, *flags])

  def write_description(self) -> None:
    """Write the description to the JSON file."""
    text = json.dumps(self.description, indent=2) + "\n"
    path = self.folder / self.FILE
    replace_file(path, lambda draft: draft.write_text(text), listed=True)

  @property
  def record(self) -> np.dtype:
    """Type of a row: `ARRAYS`, then "label" or the arrays of a condition."""
    shape = tuple(self.description["shape"])
    kind = np.dtype(self.description.get("dtype", "float32")).newbyteorder("<")
    fields: list[tuple] = [(name, kind, shape) for name in self.ARRAYS]
    if self.description["num_classes"]:
      fields.append(("label", "<i4"))
    for name, (dtype, dims) in self.description.get("cond", {}).items():
      fields.append((f"cond/{name}", np.dtype(dtype), tuple(dims)))
    return np.dtype(fields)

  def rows(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return the records [n] of arrays [n, ...] in the order of `record`."""
    rows = np.empty(len(arrays[0]), self.record)
    for name, array in zip(rows.dtype.names or (), arrays, strict=True):
      rows[name] = array
    return rows

  def check_complete(self, files: "ShardFiles", of: str = "") -> None:
    """Raise UsageError if shards are missing; `of` says which ones."""
    there = len(files.found())
    if there < files.count:
      raise UsageError(
        f"folder={str(self.folder)!r}: {there} of {files.count} shards{of} "
        f"are there; go on with: {self.command()}"
      )

  def check_unchanged(self, names: Sequence[str]) -> None:
    """Raise UsageError in the main process if files have changed."""
    name = changed_file(self.folder, names) if processes.is_main() else None
    if name is not None:
      raise self.damaged(self.folder / name)

  def damaged(self, path: pathlib.Path, reason: str = "") -> UsageError:
    """Return the error of a damaged shard."""
    return UsageError(
      f"folder={str(self.folder)!r}: {path.name} is damaged{reason}; delete it "
      f"and make it again with: {self.command()}"
    )


@dataclasses.dataclass(frozen=True)
class ShardFiles:
  """The files that share the rows of one split.

  Attributes:
    folder: Their folder.
    prefix: First part of their names.
    suffix: Last part of their names.
    num: Rows of all shards.
    size: Rows of every shard but the last, which may have fewer.
  """

  folder: pathlib.Path
  prefix: str
  suffix: str
  num: int
  size: int

  @property
  def count(self) -> int:
    """Number of shards; there may be too many for a list of them."""
    return -(-self.num // self.size)

  def span(self, shard: int) -> tuple[int, int]:
    """Return the first row of a shard, and the row after its last.

    Example:
      >>> ShardFiles(pathlib.Path(), "train", ".npy", 5, 2).span(2)
      (4, 5)
    """
    start = shard * self.size
    return start, min(start + self.size, self.num)

  def path(self, shard: int) -> pathlib.Path:
    """Return the path of a shard.

    Example:
      >>> str(ShardFiles(pathlib.Path(), "train", ".npy", 5, 2).path(1))
      'train-00001-of-00003.npy'
    """
    number = f"{shard:05d}-of-{self.count:05d}"
    return self.folder / f"{self.prefix}-{number}{self.suffix}"

  @property
  def names(self) -> list[str]:
    """Names of all shards."""
    return [self.path(i).name for i in range(self.count)]

  def found(self) -> list[str]:
    """Return the names of the shards that are there."""
    name = re.compile(rf"{self.prefix}-(\d+)-of-\d+{re.escape(self.suffix)}")
    found = (name.fullmatch(path.name) for path in self.folder.glob("*"))
    numbers = {int(match[1]): match[0] for match in found if match}
    return [
      text
      for number, text in numbers.items()
      if number < self.count and self.path(number).name == text
    ]

  def remove_drafts(self) -> None:
    """Remove what a killed process has left; nobody else may be writing.

    Raises:
      RunError: If the folder cannot be changed.
    """
    with writing(self.folder):
      for draft in self.folder.glob(f".{self.prefix}-*{self.suffix}.*.tmp"):
        draft.unlink()

  def check(self, shard: int) -> None:
    """Raise RunError before long work if a shard cannot be written."""
    with writing(self.path(shard)):
      probe(self.path(shard))

  def write(self, shard: int, save: Callable[[pathlib.Path], object]) -> None:
    """Let `save(path)` write a shard, whole or not at all."""
    path = self.path(shard)
    remedy = "make room, or the folder writable; the same command goes on"
    with writing(path, remedy):
      replace_file(path, save, remedy, listed=True)
