"""Files that are whole or not there."""

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxflow.errors import RunError, UsageError, named

# Bytes that are written to see whether a disk is full.
_PROBE = 2**16
URL = re.compile(r"[a-zA-Z][\w+.-]+:/")  # pathlib leaves one slash of two.
NO_URL = "give a path of this machine; buckets and URLs cannot be opened"
_WORKDIR = "make --workdir writable"


def local_path(path: str | os.PathLike[str]) -> Path:
  """Return a path as a shell expands it; raise UsageError for a URL."""
  full = os.path.expandvars(os.path.expanduser(path))
  unset = re.search(r"\$(\w+|{\w+})", full)
  if unset or URL.match(full):
    remedy = f"set {unset[0]}, or write the path out" if unset else NO_URL
    raise UsageError(f"path={os.fspath(path)!r}: {remedy}")
  return Path(full)


def expanded(name: str, path: str | None) -> str | None:
  """Return what `local_path` makes of an option; None and "" stay."""
  with named(path=name):
    return str(local_path(path)) if path else path


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
