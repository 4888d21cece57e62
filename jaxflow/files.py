"""Paths of users, files that are whole or not there, and their SHA-256."""

import contextlib
import errno
import hashlib
import itertools
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from jaxflow.errors import RunError, UsageError, named
from jaxflow.reading import reading

AnyPath = str | os.PathLike[str]

# Bytes that are written to see whether a disk is full.
_PROBE = 2**16
_REMEDY = "make room, or make its folder writable"
_WORKDIR = "make room, or make --workdir writable"
URL = re.compile(r"[a-zA-Z][\w+.-]+:/")  # pathlib leaves one slash of two.
NO_URL = "give a path of this machine; buckets and URLs cannot be opened"
# The list of a folder, in the form of the program sha256sum.
SUMS = "SHA256SUMS"


def local_path(path: str | os.PathLike[str]) -> Path:
  """Return a path as a shell expands it; raise UsageError for a URL."""
  full = os.path.expandvars(os.path.expanduser(path))
  unset = re.search(r"\$([A-Za-z_]\w*|{\w+})", full)
  remedy = f"set {unset[0]}" if unset else NO_URL
  if stranger := re.match(r"~[^/]*", full):
    remedy = f"there is no user {stranger[0][1:]}; ./{full} is that folder"
  if unset or stranger or URL.match(full):
    raise UsageError(f"path={os.fspath(path)!r}: {remedy}")
  return Path(full)


def expanded(name: str, path: str | None) -> str | None:
  """Return what `local_path` makes of an option; None and "" stay."""
  with named(path=name):
    return str(local_path(path)) if path else path


def replace_file(
  path: AnyPath,
  write: Callable[[Path], object],
  remedy: str = _REMEDY,
  *,
  listed: bool = False,
) -> None:
  """Let `write(draft)` write a file beside the target, then rename it.

  A reader sees the old file or the new one, after a loss of power too. Missing
  folders are made. The draft has a name that nobody can know before, and a link
  in the target's place is replaced: no other file is written through it. If
  `listed`, the folder's list has its SHA-256 before that.

  Raises:
    RunError: If the file cannot be written; it ends with the remedy.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   replace_file(f"{folder}/a.txt", lambda file: file.write_text("a"))
    ...   Path(folder, "a.txt").read_text()
    'a'
  """
  target = Path(path)
  with writing(path, remedy), _draft(target) as draft:
    write(draft)
    with open(draft, "rb") as file:
      os.fsync(file.fileno())
    if listed:
      list_sums(target.parent, {target.name: draft})
    draft.replace(path)


@contextlib.contextmanager
def _draft(target: Path) -> Iterator[Path]:
  """Make an empty file beside a target; remove it if it is left."""
  try:
    target.parent.mkdir(parents=True, exist_ok=True)
  except FileExistsError as error:  # A file stands where a folder should.
    raise NotADirectoryError(
      errno.ENOTDIR, os.strerror(errno.ENOTDIR)
    ) from error
  draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
  draft.touch(exist_ok=False)  # Follows no link.
  try:
    yield draft
  finally:
    draft.unlink(missing_ok=True)


@contextlib.contextmanager
def appending(path: Path, flags: int = 0) -> Iterator[TextIO]:
  """Open a file to add text; raise RunError if that fails, or at a link."""
  flags |= os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW
  with writing(path), open(os.open(path, flags), "a", newline="") as file:
    yield file


def list_sums(folder: Path, files: Mapping[str, Path]) -> None:
  """Add the SHA-256 of files, by name, to the list of a folder."""
  with appending(folder / SUMS, os.O_CREAT) as sums:
    sums.writelines(
      f"{_sha256(path)}  {name}\n" for name, path in files.items()
    )
    sums.flush()
    os.fsync(sums.fileno())


def changed_file(
  folder: Path, names: Iterable[str] | None = None
) -> str | None:
  """Return the first of some files, or of all, that is not as it was listed.

  One of some without an entry passes, as earlier versions wrote it, and of
  those that were written twice either is right. A list of all lacks none, but
  where there is no list, nothing is compared.
  """
  sums, text = folder / SUMS, ""
  if sums.exists():
    with reading(sums, "delete it: a folder without it is read unchecked"):
      text = sums.read_text(errors="replace")
  entries = set(re.findall("^([0-9a-f]{64})  (.+)$", text, re.MULTILINE))
  listed = {name for _, name in entries}
  if names is None:
    files = (x for x in folder.glob("*/**/*") if sums.exists() and x.is_file())
    there = {str(x.relative_to(folder)) for x in files if x.name[0] != "."}
    wanted = sorted(listed | there)
  else:
    wanted = sorted(listed & {*names})

  def sum_of(name: str) -> str:
    try:
      return _sha256(folder / name)
    except OSError:
      return "unreadable"

  with futures.ThreadPoolExecutor() as pool:
    found = pool.map(sum_of, wanted)
    pairs = zip(found, wanted, strict=True)
    return next((pair[1] for pair in pairs if pair not in entries), None)


def _sha256(path: Path) -> str:
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def save_arrays(
  path: AnyPath, arrays: Mapping[str, Any], remedy: str = _REMEDY
) -> None:
  """Write arrays by name to an .npz file, as `replace_file` does."""

  def save(draft: Path) -> None:
    # Given a path, NumPy would add a suffix to it.
    with open(draft, "wb") as file:
      np.savez(file, **arrays)

  replace_file(path, save, remedy)


def set_aside(path: Path) -> Path:
  """Rename what is damaged to a free name, and return that."""
  numbers = itertools.chain([""], (f"-{n}" for n in itertools.count(1)))
  names = (f"damaged-{path.stem}{n}{path.suffix}" for n in numbers)
  free = (x for x in map(path.with_name, names) if not os.path.lexists(x))
  return path.rename(next(free))


def probe(path: AnyPath) -> None:
  """Raise OSError where `replace_file` would, before long work."""
  target = Path(path)
  if target.is_dir():
    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
  with _draft(target) as draft, open(draft, "wb") as file:
    file.write(bytes(_PROBE))
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def writing(path: AnyPath, remedy: str = _REMEDY) -> Iterator[None]:
  """Raise a RunError with a remedy where the file cannot be written."""
  try:
    yield
  except RunError:
    raise
  except (OSError, RuntimeError) as error:  # Some libraries raise the latter.
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    raise RunError(f"{path} cannot be written ({reason}): {remedy}") from error


def check_workdir(workdir: Path, *names: str) -> None:
  """Raise RunError before long work if files of a run cannot be written."""
  for name in names:
    with writing(workdir / name, _WORKDIR):
      probe(workdir / name)


def write_text(path: Path, text: str, remedy: str = _WORKDIR) -> None:
  """Replace a file of a run by a text."""
  replace_file(path, lambda draft: draft.write_text(text), remedy)


def part_of(folder: Path, name: str) -> Path:
  """Return a path in a folder; raise UsageError where a link leads out of it.

  A folder that others have made must not make us read or write elsewhere.
  """
  path = folder / name
  real = os.path.realpath(path)
  if not Path(real).is_relative_to(os.path.realpath(folder)):
    raise UsageError(
      f"{path} is a link out of {folder}, to {real}: delete the link; a run "
      "may be on another disk as a whole"
    )
  return path
