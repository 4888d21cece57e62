"""Pairs of noise and data in a folder: shards of records, and what made them.

`pairs.json` is written first and describes all of the pairs; two folders with
one digest hold the same pairs. A shard is an ArrayRecord file of consecutive
pairs, one record each: noise, data (float32) and, where there are classes, the
label (int32). It is written to a temporary name and renamed, so a shard that
is there is whole, and the shards that are not there are all that is missing.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from array_record.python.array_record_module import (
  ArrayRecordReader,
  ArrayRecordWriter,
)

from jaxflow.data.dataset import Dataset, from_arrays
from jaxflow.data.folders import descriptions
from jaxflow.errors import RunError, UsageError

FILE = "pairs.json"

# Sections of the teacher's config that decide what its network computes.
DECISIVE = ("method", "path", "model", "parameterization", "loss")

# Fields whose names are flags of `jaxflow pairs`, in the order of a command.
_FLAGS = (
  *("workdir", "step", "ema", "num", "solver", "nfe", "guidance"),
  *("seed", "shard_size"),
)


@dataclasses.dataclass(frozen=True)
class Pairs:
  """A folder of pairs; `Pairs.create` begins one, `Pairs.open` reads one.

  Attributes:
    folder: The folder.
    description: What `pairs.json` holds: `workdir`, `step`, `ema` of the
      teacher, `parameters` (hash of its weights), `config`; `num`, `solver`,
      `nfe`, `guidance`, `grid`, `seed`; `shape`, `num_classes`, `shard_size`.
  """

  folder: pathlib.Path
  description: Mapping[str, Any]

  @classmethod
  def create(cls, folder: pathlib.Path, description: Mapping[str, Any]) -> Self:
    """Write the description, or find the same one in the folder.

    Raises:
      UsageError: If the folder holds other pairs, other files, or cannot be
        written.
    """
    description = json.loads(json.dumps(dict(description)))
    if descriptions.begin(folder, FILE, description):
      return cls(folder, description)
    found = cls.open(folder, field="--out")
    _check_same(found.description, description, folder)
    return found

  @classmethod
  def open(cls, folder: pathlib.Path, *, field: str) -> Self:
    """Read the description of a folder; `field` names it in messages.

    Raises:
      UsageError: If the folder holds no pairs.
    """
    needs = (*_FLAGS, "parameters", "config", "shape")
    description = descriptions.read(
      folder, FILE, needs=needs, command="pairs", field=field
    )
    return cls(folder, description)

  @property
  def digest(self) -> str:
    """What the pairs are, in 16 hexadecimal digits, wherever they lie."""
    text = json.dumps(identity(self.description), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

  @property
  def shards(self) -> list[tuple[int, int]]:
    """First pair of every shard, and the pair after its last."""
    description = self.description
    return descriptions.spans(description["num"], description["shard_size"])

  def missing(self) -> list[int]:
    """Return the numbers of the shards that are not there."""
    return [i for i in range(len(self.shards)) if not self._file(i).exists()]

  def write(
    self,
    shard: int,
    noise: np.ndarray,
    data: np.ndarray,
    label: np.ndarray | None,
  ) -> None:
    """Write one shard, whole or not at all.

    Args:
      shard: Its number.
      noise: Its noise [n, ...].
      data: What the teacher makes of it, the same shape.
      label: Its classes [n], or None.

    Raises:
      RunError: If it cannot be written.
    """
    rows = np.empty(len(data), self._record())
    rows["noise"], rows["data"] = noise, data
    if label is not None:
      rows["label"] = label
    path = self._file(shard)
    part = path.with_name(f"{path.name}.part")
    try:
      writer = ArrayRecordWriter(str(part), "group_size:1,uncompressed")
      for row in rows:
        writer.write(row.tobytes())
      writer.close()
      os.replace(part, path)
    except (OSError, RuntimeError) as error:
      raise RunError(
        f"{path} cannot be written ({error}): make room, or the folder "
        "writable; the same command goes on"
      ) from error

  def load(self, *, field: str) -> Dataset:
    """Read all pairs into memory.

    Args:
      field: The flag or config field that names the folder, for messages.

    Returns:
      A data set with noise.

    Raises:
      UsageError: If shards are missing or damaged.
    """
    shards, missing = self.shards, self.missing()
    if missing:
      raise UsageError(
        f"{field}={str(self.folder)!r}: {len(shards) - len(missing)} of "
        f"{len(shards)} shards are there; go on with: {self.command()}"
      )
    rows = np.concatenate([self._read(i, field) for i in range(len(shards))])
    classes = self.description["num_classes"]
    return from_arrays(
      rows["data"],
      rows["label"] if classes else None,
      num_classes=classes,
      name=str(self.folder),
      noise=rows["noise"],
    )

  def command(self) -> str:
    """Return the command that makes the missing shards, for a shell."""
    flags = [f"--{name}={self.description[name]}" for name in _FLAGS]
    grid = self.description["grid"]
    # A grid of another name than the teacher's was asked for.
    if grid["name"] != self.description["config"]["sample"]["grid"]["name"]:
      flags.append(f"--grid={grid['name']}")
    return shlex.join(["jaxflow", "pairs", *flags, f"--out={self.folder}"])

  def _read(self, shard: int, field: str) -> np.ndarray:
    path, (start, stop) = self._file(shard), self.shards[shard]
    try:
      reader = ArrayRecordReader(str(path))
      records = b"".join(reader.read_all())
      reader.close()
      rows = np.frombuffer(records, self._record())
      if len(rows) != stop - start:
        raise ValueError(f"{len(rows)} pairs")
    except (OSError, RuntimeError, ValueError, IndexError) as error:
      raise UsageError(
        f"{field}={str(self.folder)!r}: {path.name} is damaged; delete it and "
        f"make it again with: {self.command()}"
      ) from error
    return rows

  def _record(self) -> np.dtype:
    shape = tuple(self.description["shape"])
    fields = [("noise", "<f4", shape), ("data", "<f4", shape)]
    label = [("label", "<i4")] if self.description["num_classes"] else []
    return np.dtype([*fields, *label])

  def _file(self, shard: int) -> pathlib.Path:
    count = len(self.shards)
    return self.folder / f"pairs-{shard:05d}-of-{count:05d}.array_record"


def identity(description: Mapping[str, Any]) -> dict[str, Any]:
  """Return what decides the pairs: not where the teacher's folder lies.

  Example:
    >>> identity({"workdir": "a", "num": 3, "config": {"train": {}}})
    {'num': 3, 'config': {}}
  """
  rest = {k: v for k, v in description.items() if k != "workdir"}
  config = {k: v for k, v in rest["config"].items() if k in DECISIVE}
  return rest | {"config": config}


def teacher_of(description: Mapping[str, Any]) -> str:
  """Name the teacher of pairs: its folder, and the hash of its weights.

  Example:
    >>> teacher_of({"workdir": "runs/a", "parameters": "5eed"})
    'runs/a (parameters 5eed)'
  """
  return f"{description['workdir']} (parameters {description['parameters']})"


def _check_same(
  old: Mapping[str, Any], new: Mapping[str, Any], folder: pathlib.Path
) -> None:
  theirs, mine = identity(old), identity(new)
  # Other weights follow from another step: name what the user gave.
  for name in (*_FLAGS, *sorted(mine)):
    if mine.get(name) == theirs.get(name):
      continue
    values = repr(theirs.get(name)), repr(mine.get(name))
    given = f"--{name}"
    if name in ("parameters", "config"):
      given, values = "--workdir", (teacher_of(old), teacher_of(new))
    elif name not in _FLAGS:
      given = f"the teacher's sample.{name}"
    raise UsageError(
      f"--out={folder} was made with {given}={values[0]}, not {values[1]}: "
      "give another --out, or the old value"
    )
