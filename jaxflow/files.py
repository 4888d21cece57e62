"""Files that are whole or not there."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxflow.errors import RunError

# Bytes that are written to see whether a disk is full.
_PROBE = 2**16
_WORKDIR = "make --workdir writable"


def replace_file(
  path: str | os.PathLike[str], write: Callable[[Path], object]
) -> None:
  """Let `write(draft)` write a file beside the target, then rename it.

  A reader sees the old file or the new one, after a loss of power too. Missing
  folders are made.

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
  """Write arrays by name to an .npz file, as `replace_file` does."""

  def save(draft: Path) -> None:
    # Given a path, NumPy would add a suffix to it.
    with open(draft, "wb") as file:
      np.savez(file, **arrays)

  replace_file(path, save)


def probe(path: str | os.PathLike[str]) -> None:
  """Raise OSError where `replace_file` would, before long work."""
  target = Path(path)
  if target.is_dir():
    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
  target.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryFile(dir=target.parent) as file:
    file.write(bytes(_PROBE))
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], remedy: str) -> Iterator[None]:
  """Raise a RunError with a remedy where the file cannot be written."""
  try:
    yield
  except OSError as error:
    raise RunError(
      f"{path} cannot be written ({error.strerror}): {remedy}"
    ) from error


def check_workdir(workdir: Path, *names: str) -> None:
  """Raise RunError before long work if files of a run cannot be written."""
  for name in names:
    with writing(workdir / name, _WORKDIR):
      probe(workdir / name)


def write_text(path: Path, text: str) -> None:
  """Replace a file of a run by a text."""
  with writing(path, _WORKDIR):
    replace_file(path, lambda draft: draft.write_text(text))
