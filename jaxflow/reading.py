"""Files read as what they should be.

A person may have edited a file, or a disk spoiled it. So what a file holds is
compared with an annotation, and a message names file, field and value.
"""

import contextlib
import csv
import dataclasses
import io
import json
import logging
import numbers
import reprlib
import typing
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxflow.errors import PlugInError, UsageError
from jaxflow.options import Range, unmarked

# Whatever reading a file that is damaged, or is of another kind, may raise.
DAMAGE = (
  *(OSError, ValueError, LookupError, TypeError, AttributeError, EOFError),
  *(ArithmeticError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error),
)


def _is(*types: type) -> Callable[[Any], bool]:
  # A truth value is a number in Python only.
  return lambda x: (
    isinstance(x, types) and isinstance(x, bool) <= (bool in types)
  )


# What JSON may hold for an annotation.
_KINDS: Mapping[Any, Range] = {
  bool: Range("true or false", _is(bool)),
  int: Range("a whole number", _is(numbers.Integral)),
  float: Range("a number", _is(numbers.Real)),
  str: Range("a text", _is(str)),
  **dict.fromkeys((list, tuple), Range("a list", _is(list, tuple))),
  **dict.fromkeys((dict, Mapping), Range("named values", _is(dict))),
}
_LOGGER = logging.getLogger(__name__)


@contextlib.contextmanager
def reading(where: object, remedy: str) -> Iterator[None]:
  """Raise a UsageError with a remedy where a file that is there is damaged."""
  try:
    yield
  except (FileNotFoundError, NotADirectoryError, PlugInError):
    raise
  except DAMAGE as error:
    said = getattr(error, "strerror", None) or str(error)
    reason = " ".join(said.split()) or type(error).__name__
    raise UsageError(f"{where} cannot be read ({reason}): {remedy}") from error


def read_json(
  path: Path, kind: Any, each: Callable[[dict[str, Any]], Any] | None = None
) -> Any:
  """Return what a JSON file holds, as `checked`; none of a newer schema.

  `each` takes every object of it and returns what stands in its place.
  """
  values = json.loads(path.read_text(), object_hook=each)
  if isinstance(values, dict) and values.get("schema", 1) != 1:
    raise ValueError(f"schema={values['schema']!r}: this version reads 1")
  return checked(values, kind)


def checked(value: Any, kind: Any, place: str = "") -> Any:
  """Return a value of JSON; raise ValueError unless it is of a kind.

  A kind is an annotation, a mapping of fields to kinds, `[kind]` for a list, or
  `(kind, NoneType)`. A Range in an annotation counts, and a dataclass is made;
  the rest of what it may say is not looked at. A field that may be None may be
  absent.

  Example:
    >>> checked({"a": [1, "x"]}, {"a": [int], "b": int | None})
    Traceback (most recent call last):
    ...
    ValueError: a[1]='x': give a whole number
  """
  plain: Any = unmarked(kind)
  inner = plain if isinstance(plain, list | tuple) else typing.get_args(plain)
  if inner[1:] == (type(None),):
    return None if value is None else checked(value, inner[0], place)
  made = dataclasses.is_dataclass(plain)
  fields = typing.get_type_hints(plain, include_extras=True) if made else plain
  outer = typing.get_origin(plain) or plain
  if isinstance(fields, dict | list):
    outer = type(fields)
  if outer is typing.Literal and value not in inner:
    choices = ", ".join(map(repr, inner))
    raise ValueError(f"{place}={reprlib.repr(value)}: choose one of {choices}")
  for limit in (_KINDS.get(outer), *getattr(kind, "__metadata__", ())):
    if isinstance(limit, Range) and not limit.allows(value):
      given = f"{place}={reprlib.repr(value)}"
      if value is None or not place:
        given = f"{place} is absent" if place else f"it holds {given[1:]}"
      raise ValueError(f"{given}: give {limit.text}")
  if isinstance(fields, dict):
    inside = {k: (value.get(k), x) for k, x in fields.items()}
  elif inner and _KINDS.get(outer) is _KINDS[dict]:
    inside = {k: (x, inner[1]) for k, x in value.items()}
  elif inner and _KINDS.get(outer) is _KINDS[list]:
    return [checked(x, inner[0], f"{place}[{i}]") for i, x in enumerate(value)]
  else:
    return value
  start = f"{place}." if place else ""
  found = {k: checked(x, y, start + k) for k, (x, y) in inside.items()}
  if made:
    return kind(**found)
  return {**value, **{k: x for k, x in found.items() if k in value}}


def read_arrays(path: Path) -> dict[str, np.ndarray]:
  """Return the arrays of an .npz file by name."""
  # NumPy leaves a file open that it cannot read.
  with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
    return {name: file[name] for name in file.files}


def read_table(path: Path) -> tuple[list[dict[str, str]], int]:
  """Return the whole rows of a log in CSV; warn of others, and count them.

  A whole row has a step, and a number or nothing in every other column. The
  last row may be one that a killed process has half written: it is no damage.
  """
  text = path.read_bytes().decode(errors="replace")
  try:
    # Logs quote nothing: a quote is damage of one row.
    lines = io.StringIO(text, newline="")
    rows = list(csv.DictReader(lines, quoting=csv.QUOTE_NONE))
  except csv.Error:  # No table at all.
    rows, text = [{}], "\n"
  whole = [row for row in rows if _is_whole(row)]
  torn = rows[-1:] != whole[-1:] and not text.endswith("\n")
  damaged = len(rows) - len(whole) - torn
  if damaged:
    count = (
      "1 damaged row is" if damaged == 1 else f"{damaged} damaged rows are"
    )
    _LOGGER.warning("%s: %s left out", path, count)
  return whole, damaged


def _is_whole(row: Mapping[str, Any]) -> bool:
  try:
    numbers = [float(x) for x in row.values() if x != ""]
    return row["step"].isdecimal() and len(numbers) > 0
  except (ValueError, TypeError, LookupError):
    return False
