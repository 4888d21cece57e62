"""Files that are whole or not there."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["replace_file", "save_arrays"]


def replace_file(
  path: str | os.PathLike[str], write: Callable[[Path], object]
) -> None:
  """Write a file beside the target, then rename it to the target.

  A reader sees the old file or the new one, after a loss of power too.

  Args:
    path: The target; missing folders are made.
    write: Writes the file that it is given.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   replace_file(f"{folder}/a.txt", lambda file: file.write_text("a"))
    ...   Path(folder, "a.txt").read_text()
    'a'
  """
  target = Path(path)
  target.parent.mkdir(parents=True, exist_ok=True)
  draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
  try:
    write(draft)
    with open(draft, "rb") as file:
      os.fsync(file.fileno())
    draft.replace(target)
  finally:
    draft.unlink(missing_ok=True)


def save_arrays(
  path: str | os.PathLike[str], arrays: Mapping[str, Any]
) -> None:
  """Write an .npz file as `replace_file` does.

  Args:
    path: The file.
    arrays: Arrays by name.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   save_arrays(f"{folder}/a.npz", {"a": np.arange(3)})
    ...   np.load(f"{folder}/a.npz")["a"].tolist()
    [0, 1, 2]
  """

  def save(draft: Path) -> None:
    # Given a path, NumPy would add a suffix to it.
    with open(draft, "wb") as file:
      np.savez(file, **arrays)

  replace_file(path, save)
