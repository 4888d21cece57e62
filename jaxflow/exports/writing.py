"""Folders and packages of exports."""

import contextlib
import importlib
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator
from typing import Any

from jaxflow.errors import UsageError
from jaxflow.files import write_text, writing
from jaxflow.runs.importing import check_new


@contextlib.contextmanager
def new_folder(out: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yield a folder that takes its name when all of it is written."""
  check_new(out)
  draft = out.with_name(f".{out.name}.{secrets.token_hex(8)}.tmp")
  try:
    with writing(out):
      draft.mkdir(parents=True)
    yield draft
    with writing(out):
      os.replace(draft, out)
  finally:
    shutil.rmtree(draft, ignore_errors=True)


def write_json(path: pathlib.Path, value: Any) -> None:
  """Write a value as JSON."""
  write_text(path, json.dumps(value, indent=2) + "\n")


def needed(format: str, package: str, extra: str) -> Any:
  """Import a package that a format needs; say which extra brings it."""
  try:
    return importlib.import_module(package)
  except ImportError as error:
    raise UsageError(
      f"format={format!r} needs the package {package.partition('.')[0]}: "
      f"pip install 'jaxflow-generative[{extra}]'"
    ) from error


def size_of(folder: pathlib.Path) -> str:
  """Return in words how large the files of a folder are."""
  total = sum(x.stat().st_size for x in folder.rglob("*") if x.is_file())
  return f"{total / 2**20:,.2f} MiB"
