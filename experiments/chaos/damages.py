"""Damages of files: each returns what it did, and what may follow from it.

`(how, wrong, compare)`: whether a result without a word is nonsense, and
whether a result must be the one of the undamaged file.
"""

import contextlib
import json
import pathlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Damage = tuple[str, bool, bool]

BYTES = ("missing", "empty", "half", "garbage", "a folder", "flipped", "longer")
TEXTS = ("", "null", "[]", "7", '"x"', "{", "{}", "[{}]", "\ufeff{}", "NaN")
JSON_NUMBERS = ("nan", "low", "high")
CELLS = ("x", "nan", "", "-3", '"', "1e999", "9" * 30, "\u2603", ",,")
SOURCES = (
  *("", "1/0", "import no_such", "def get_config(: pass", "get_config = 3"),
  *("raise SystemExit(0)", "raise SystemExit(7)"),
  *("def get_config(): return {}", "def get_config(method): return None"),
  *("def get_config(method): return {'method': method}", "\x00", "return 3"),
  "def get_config(method): raise SystemExit(0)",
  "def get_config(method): raise ValueError(method)",
  "from ml_collections import ConfigDict\n"
  "def get_config(method): return ConfigDict({'method': method})",
  "from jaxflow.config import default_config\n"
  "def get_config(method):\n"
  "  c = default_config(method, data='ring', model='mlp')\n"
  "  {}\n  return c",
)
# What goes into the braces of the last of them.
LINES = (
  *("del c.loss", "del c.train.steps", "c.train = 3", "c.train.steps = 2.5"),
  *(
    "c.no_such = 1",
    "c.path.name = 'nosuch'",
    "c.times.law = 3",
    "c = c.train",
  ),
  *("c.optimizer.b1 = -3", "c.seed = 'x'", "c.data = None", "c.method = 'no'"),
)


def of(path: pathlib.Path) -> Callable[[pathlib.Path, random.Random], Damage]:
  """Return the damage for files of a kind."""
  known = {".json": of_json, ".npz": of_npz, ".csv": of_csv, ".py": of_python}
  return known.get(path.suffix, of_bytes)


def of_bytes(path: pathlib.Path, rng: random.Random) -> Damage:
  """Damage any file."""
  data, how = path.read_bytes(), rng.choice(BYTES)
  path.unlink()
  place = rng.randrange(max(len(data), 1))
  if how == "a folder":
    path.mkdir()
  elif how == "flipped":
    flipped = bytearray(data or b"0")
    flipped[place] ^= 1 << rng.randrange(8)
    path.write_bytes(flipped)
    how = f"a bit of byte {place} flipped"
  elif how != "missing":
    new = {"empty": b"", "half": data[: len(data) // 2], "longer": data * 2}
    path.write_bytes(new.get(how, rng.randbytes(64)))
  return how, False, True


def of_python(path: pathlib.Path, rng: random.Random) -> Damage:
  """Replace a config file by one that is wrong."""
  text = rng.choice((*SOURCES, *SOURCES[-1:] * 12))
  text = text.replace("  {}\n", f"  {rng.choice(LINES)}\n")
  path.write_text(text)
  return text, True, False


def leaves(values: Any, at: tuple = ()) -> Iterator[tuple]:
  """Yield the path of everything inside a JSON value."""
  inside = values.items() if isinstance(values, dict) else ()
  inside = enumerate(values) if isinstance(values, list) else inside
  for key, value in inside:
    yield (*at, key)
    yield from leaves(value, (*at, key))


def of_json(path: pathlib.Path, rng: random.Random) -> Damage:
  """Damage a JSON file as a whole, or one value in it."""
  chance = rng.random()
  if chance < 0.15:
    return of_bytes(path, rng)
  if chance < 0.25:
    text = rng.choice(TEXTS)
    path.write_text(text)
    return f"text {text!r}", True, True
  values = json.loads(path.read_text())
  *inner, key = rng.choice(list(leaves(values)))
  place = values
  for step in inner:
    place = place[step]
  old, wrong, compare = place[key], True, False
  other = {str: 7, dict: "x", list: 7, type(None): {"x": 1}}.get(type(old), "x")
  how = rng.choice(("drop", "rename", "type", *JSON_NUMBERS, "null"))
  if how in JSON_NUMBERS and not isinstance(old, bool | int | float):
    how = "type"
  field = ".".join(map(str, (*inner, key)))
  if how == "drop" or (how == "rename" and isinstance(key, int)):
    del place[key]
    how, wrong, compare = "dropped", False, True
  elif how == "rename":
    place[f"{key}_x"] = place.pop(key)
  else:
    new = {"type": other, "nan": float("nan"), "null": None}
    new |= {"low": -3, "high": 10**30}
    place[key] = new[how]
    whole = isinstance(old, int) and not isinstance(old, bool)
    wrong = how in ("type", "nan") or (how == "low" and whole)
    compare = how == "null"
    how = json.dumps(place[key])
  path.write_text(json.dumps(values))
  return f"{field}={how}", wrong and "version" not in field, compare


def of_npz(path: pathlib.Path, rng: random.Random) -> Damage:
  """Damage a file of arrays as a whole, or one array in it."""
  if rng.random() < 0.3:
    return of_bytes(path, rng)
  with np.load(path) as file:
    arrays = dict(file)
  key = rng.choice(sorted(arrays))
  old = arrays[key]
  numbers = old.dtype.kind in "fiu"
  changes: dict[str, Callable[[], Any]] = {
    "dropped": lambda: None,
    "texts": lambda: np.array(["x"]),
    "objects": lambda: np.array([None]),
    "empty": lambda: old[..., None][..., :0],
    "nested": lambda: old[None],
    "complex": lambda: old + 1j if numbers else np.array(1j),
    "NaN": lambda: np.full(old.shape, np.nan) if numbers else np.nan,
    "huge": lambda: np.full(old.shape, 1e300) if numbers else 1e300,
    "negative": lambda: -old if numbers else np.array("{}"),
  }
  how = rng.choice(sorted(changes))
  with contextlib.suppress(KeyError):
    arrays[key] = changes[how]()
  if how == "dropped":
    del arrays[key]
  np.savez(path, **arrays)
  return f"{key}={how}", False, True


def of_csv(path: pathlib.Path, rng: random.Random) -> Damage:
  """Damage a table: a log, so that it may be read as far as it goes."""
  if rng.random() < 0.3:
    how, *_ = of_bytes(path, rng)
    return how, False, False
  rows = [line.split(",") for line in path.read_text().splitlines()]
  row, column = rng.randrange(len(rows)), rng.randrange(len(rows[0]))
  value = rows[row][column] = rng.choice(CELLS)
  path.write_text("\n".join(map(",".join, rows)) + "\n")
  return f"row {row}, column {column}: {value!r}", False, False
