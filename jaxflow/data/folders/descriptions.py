"""Folders that say in a JSON file what they hold, before they hold it."""

import json
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from jaxflow.errors import UsageError


def begin(
  folder: pathlib.Path, file: str, description: Mapping[str, Any]
) -> bool:
  """Write the description of a folder that has none.

  Args:
    folder: The folder, which is made; --out of a command.
    file: Name of the description.
    description: What the folder is to hold.

  Returns:
    Whether it was written; False if there is a description already.

  Raises:
    UsageError: If the folder holds other files, or cannot be written.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / file).exists():
      return False
    if any(path.suffix != ".part" for path in folder.iterdir()):
      raise UsageError(
        f"--out={folder} is not empty and holds no {file}: give a new folder"
      )
    write(folder / file, description)
  except OSError as error:
    raise UsageError(
      f"--out={folder} cannot be written ({error.strerror}): give another "
      "folder, or make it writable"
    ) from error
  return True


def write(path: pathlib.Path, description: Mapping[str, Any]) -> None:
  """Write a description, replacing the file in one step.

  Args:
    path: The file.
    description: Values as JSON has them.
  """
  part = path.with_name(f"{path.name}.part")
  part.write_text(json.dumps(description, indent=2) + "\n")
  os.replace(part, path)


def read(
  folder: pathlib.Path,
  file: str,
  *,
  needs: Collection[str],
  command: str,
  field: str,
) -> dict[str, Any]:
  """Read the description of a folder.

  Args:
    folder: The folder.
    file: Name of the description.
    needs: Names without which it is none.
    command: The command that makes such folders, for messages.
    field: The flag or config field that names the folder, for messages.

  Raises:
    UsageError: If the folder has no description.
  """
  try:
    description = json.loads((folder / file).read_text())
    missing = set(needs) - set(description)
    if missing:
      raise ValueError(f"{min(missing)!r} is absent")
  except (FileNotFoundError, NotADirectoryError) as error:
    raise UsageError(
      f"{field}={str(folder)!r} holds no {file}: give a folder that `jaxflow "
      f"{command}` has made"
    ) from error
  except (OSError, ValueError, TypeError) as error:
    raise UsageError(
      f"{field}={str(folder)!r}: {file} cannot be read ({error}): restore it "
      "from a copy, or give another folder"
    ) from error
  return description


def spans(num: int, size: int) -> list[tuple[int, int]]:
  """Return the first row of every shard, and the row after its last.

  Args:
    num: Rows of all shards.
    size: Rows of every shard but the last, which may have fewer.

  Example:
    >>> spans(5, 2)
    [(0, 2), (2, 4), (4, 5)]
  """
  return [(start, min(start + size, num)) for start in range(0, num, size)]
