"""Folders that a command writes: made once, held by one process."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

from jaxflow.errors import UsageError
from jaxflow.files import part_of, probe, replace_file
from jaxflow.parallel import processes

# Folders of a run.
_FOLDERS = "best checkpoints evaluation samples tensorboard wandb".split()


def make_workdir(workdir: pathlib.Path) -> None:
  """Make a run's folder; raise UsageError if a part of it cannot be there."""
  for name in _FOLDERS:
    part_of(workdir, name)
  try:
    probe(workdir / "config.json")
  except OSError as error:
    raise UsageError(
      f"workdir={workdir} cannot be written ({error.strerror}): give "
      "another folder, make room, or make it writable"
    ) from error


def check_shared(workdir: pathlib.Path) -> None:
  """Raise UsageError unless all processes of a job see the same folder.

  In a job the folder is made.
  """
  if processes.count() == 1:
    return
  processes.check_same(str(workdir), "workdir")
  token = workdir / ".shared"

  def touch():
    make_workdir(workdir)
    replace_file(token, lambda draft: None)

  def look():
    if not token.exists():
      raise UsageError(
        f"workdir={workdir} is not on a disk that all processes share: give "
        "a folder that is"
      )

  processes.once(touch)
  processes.together(look)
  processes.once(token.unlink)


@contextlib.contextmanager
def locked(
  folder: pathlib.Path, use: str = "is being trained"
) -> Iterator[None]:
  """Hold a folder; raise UsageError if another process holds it.

  The message says what that process makes of it: `use`.
  """
  handle = os.open(folder, os.O_RDONLY)
  try:
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    yield
  except BlockingIOError as error:
    raise UsageError(
      f"folder={folder} {use} by another process: wait for its end, or give "
      "another folder"
    ) from error
  finally:
    os.close(handle)
