"""Files that are whole or not there."""

import os
from collections.abc import Callable
from pathlib import Path


def replace_file(
  path: str | os.PathLike[str], write: Callable[[Path], object]
) -> None:
  """Write beside the target and rename, so no half file is ever seen.

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
    draft.replace(target)
  finally:
    draft.unlink(missing_ok=True)
