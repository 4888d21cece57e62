"""Folders of shards, each described by a JSON file."""

import abc
import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from jaxflow.errors import RunError, UsageError
from jaxflow.files import replace_file

__all__ = ["ShardFiles", "ShardFolder"]


@dataclasses.dataclass(frozen=True)
class ShardFolder(abc.ABC):
  """A folder of shards; `create` begins one, `open` reads one.

  The description is written first. It decides all rows of all shards.

  Attributes:
    FILE: Name of the JSON file with the description.
    COMMAND: Command of jaxflow that makes such folders, for messages.
    NEEDS: Names without which a description is not valid.
    folder: The folder.
    description: Contents of the JSON file.
  """

  FILE: ClassVar[str]
  COMMAND: ClassVar[str]
  NEEDS: ClassVar[tuple[str, ...]]

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
        if any(path.suffix != ".tmp" for path in folder.iterdir()):
          raise UsageError(
            f"folder={folder} is not empty and holds no {cls.FILE}: give a new "
            "folder"
          )
        made.write_description()
        return made
    except OSError as error:
      raise UsageError(
        f"folder={folder} cannot be written ({error.strerror}): give another "
        "folder, or make it writable"
      ) from error
    found = cls.open(folder)
    for argument, old, new in found.differences(made.description):
      raise UsageError(
        f"folder={folder} was made with {argument}={old}, not {new}: give "
        "another --out, or the old value"
      )
    return found

  @classmethod
  def open(cls, folder: pathlib.Path) -> Self:
    """Read the description of a folder.

    Raises:
      UsageError: If the folder has no valid description.
    """
    try:
      description = json.loads((folder / cls.FILE).read_text())
      missing = set(cls.NEEDS) - set(description)
      if missing:
        raise ValueError(f"{min(missing)!r} is absent")
    except (FileNotFoundError, NotADirectoryError) as error:
      raise UsageError(
        f"folder={str(folder)!r} holds no {cls.FILE}: give a folder that "
        f"`jaxflow {cls.COMMAND}` has made"
      ) from error
    except (OSError, ValueError, TypeError) as error:
      raise UsageError(
        f"folder={str(folder)!r}: {cls.FILE} cannot be read ({error}): restore "
        "it from a copy, or give another folder"
      ) from error
    return cls(folder, description)

  def write_description(self) -> None:
    """Write the description to the JSON file."""
    text = json.dumps(self.description, indent=2) + "\n"
    replace_file(self.folder / self.FILE, lambda file: file.write_text(text))

  @abc.abstractmethod
  def differences(
    self, description: Mapping[str, Any]
  ) -> list[tuple[str, Any, Any]]:
    """Return argument, old and new value where rows would differ."""

  @abc.abstractmethod
  def command(self) -> str:
    """Return the command that makes the missing shards, for a shell."""


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
  def spans(self) -> list[tuple[int, int]]:
    """First row of every shard, and the row after its last.

    Example:
      >>> ShardFiles(pathlib.Path(), "train", ".npy", 5, 2).spans
      [(0, 2), (2, 4), (4, 5)]
    """
    starts = range(0, self.num, self.size)
    return [(start, min(start + self.size, self.num)) for start in starts]

  def path(self, shard: int) -> pathlib.Path:
    """Return the path of a shard.

    Example:
      >>> str(ShardFiles(pathlib.Path(), "train", ".npy", 5, 2).path(1))
      'train-00001-of-00003.npy'
    """
    count = len(self.spans)
    return (
      self.folder / f"{self.prefix}-{shard:05d}-of-{count:05d}{self.suffix}"
    )

  def missing(self) -> list[int]:
    """Return the numbers of the shards that are not there."""
    return [i for i in range(len(self.spans)) if not self.path(i).exists()]

  def write(self, shard: int, save: Callable[[pathlib.Path], object]) -> None:
    """Write a shard, whole or not at all.

    Args:
      shard: Its number.
      save: Writes the file that it is given.

    Raises:
      RunError: If the file cannot be written.
    """
    path = self.path(shard)
    try:
      # A killed process leaves a draft; the lock admits one that writes.
      for draft in self.folder.glob(f".{path.name}.*.tmp"):
        draft.unlink()
      replace_file(path, save)
    except (OSError, RuntimeError) as error:
      reason = getattr(error, "strerror", None) or error
      raise RunError(
        f"{path} cannot be written ({reason}): make room, or the folder "
        "writable; the same command goes on"
      ) from error
