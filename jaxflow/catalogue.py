"""The table of methods as text, read from its file.

The table itself loads JAX, which takes a second: who lists methods, or checks
the name of one, need not wait for that.
"""

import ast
import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

_FILE = pathlib.Path(__file__).with_name("methods.py")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
  """What a row of METHODS says in words: see `methods.Method`."""

  summary: str
  paper: str
  needs: frozenset[str] = frozenset()


@functools.cache
def entries() -> Mapping[str, Entry]:
  """Return the words of every row of METHODS, in its order."""
  table = next(
    node.value
    for node in ast.parse(_FILE.read_text()).body
    if isinstance(node, ast.AnnAssign)
    and isinstance(node.target, ast.Name)
    and node.target.id == "METHODS"
  )
  assert isinstance(table, ast.Call) and isinstance(table.args[0], ast.Dict)
  rows = table.args[0]
  return {
    _literal(key): _entry(row)
    for key, row in zip(rows.keys, rows.values, strict=True)
  }


def _entry(row: ast.expr) -> Entry:
  """Return the words of `Method(summary="...", ...)`."""
  assert isinstance(row, ast.Call)
  names = {field.name for field in dataclasses.fields(Entry)}
  given = {
    word.arg: _literal(word.value) for word in row.keywords if word.arg in names
  }
  return Entry(**given)


def _literal(value: Any) -> Any:
  """Return the value of a literal, or of `frozenset` of one."""
  if isinstance(value, ast.Call):
    return frozenset(_literal(value.args[0]))
  return ast.literal_eval(value)
