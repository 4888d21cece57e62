"""Pairs of noise and data in a folder: shards of records, and their origin.

`pairs.json` is written first and describes all of the pairs; two folders with
one digest hold the same pairs. A shard is an ArrayRecord file of consecutive
pairs, one record each: noise, data (float32) and, where there are classes, the
label (int32). It is written to a temporary name and renamed, so a shard that
is there is whole, and the shards that are not there are all that is missing.
"""

import dataclasses
import hashlib
import json
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from array_record.python.array_record_module import (
  ArrayRecordReader,
  ArrayRecordWriter,
)

from jaxflow.data.dataset import Dataset, from_arrays
from jaxflow.data.folders.shard_folder import ShardFiles, ShardFolder
from jaxflow.errors import UsageError

__all__ = ["Pairs", "identity", "teacher_of"]

# Sections of the teacher's config that decide the output of its network.
DECISIVE = ("method", "path", "model", "parameterization", "loss")

# Fields whose names are flags of `jaxflow pairs`, in the order of a command.
_FLAGS = (
  *("workdir", "step", "ema", "num", "solver", "nfe", "guidance"),
  *("seed", "shard_size"),
)


@dataclasses.dataclass(frozen=True)
class Pairs(ShardFolder):
  """A folder of pairs; `Pairs.create` begins one, `Pairs.open` reads one.

  Attributes:
    folder: The folder.
    description: `workdir`, `step`, `ema` of the teacher, `parameters` (hash of
      its weights), `config`; `num`, `solver`, `nfe`, `guidance`, `grid`,
      `seed`; `shape`, `num_classes`, `shard_size`.
  """

  FILE: ClassVar[str] = "pairs.json"
  COMMAND: ClassVar[str] = "pairs"
  NEEDS: ClassVar[tuple[str, ...]] = (*_FLAGS, "parameters", "config", "shape")

  @property
  def digest(self) -> str:
    """Hash of all that decides the pairs, 16 hexadecimal digits."""
    text = json.dumps(identity(self.description), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

  @property
  def files(self) -> ShardFiles:
    """The files of the shards."""
    num, size = self.description["num"], self.description["shard_size"]
    return ShardFiles(self.folder, "pairs", ".array_record", num, size)

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
      data: Samples that the teacher makes of it, the same shape.
      label: Its classes [n], or None.

    Raises:
      RunError: If it cannot be written.
    """
    rows = np.empty(len(data), self._record())
    rows["noise"], rows["data"] = noise, data
    if label is not None:
      rows["label"] = label

    def save(path: pathlib.Path) -> None:
      writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
      for row in rows:
        writer.write(row.tobytes())
      writer.close()

    self.files.write(shard, save)

  def load(self) -> Dataset:
    """Read all pairs into memory.

    Returns:
      A data set with noise.

    Raises:
      UsageError: If shards are missing or damaged.
    """
    count, missing = len(self.files.spans), len(self.files.missing())
    if missing:
      raise UsageError(
        f"folder={str(self.folder)!r}: {count - missing} of {count} shards are "
        f"there; go on with: {self.command()}"
      )
    rows = np.concatenate([self._read(i) for i in range(count)])
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

  def differences(
    self, description: Mapping[str, Any]
  ) -> list[tuple[str, Any, Any]]:
    """Return argument, old and new value where pairs would differ."""
    old, new = identity(self.description), identity(description)
    found = []
    # Other weights follow from another step: the flags come first.
    for name in (*_FLAGS, *sorted(new)):
      if new.get(name) == old.get(name):
        continue
      values = repr(old.get(name)), repr(new.get(name))
      argument = f"--{name}"
      if name in ("parameters", "config"):
        argument = "--workdir"
        values = teacher_of(self.description), teacher_of(description)
      elif name not in _FLAGS:
        argument = f"the teacher's sample.{name}"
      found.append((argument, *values))
    return found

  def _read(self, shard: int) -> np.ndarray:
    path, (start, stop) = self.files.path(shard), self.files.spans[shard]
    try:
      reader = ArrayRecordReader(str(path))
      records = b"".join(reader.read_all())
      reader.close()
      rows = np.frombuffer(records, self._record())
      if len(rows) != stop - start:
        raise ValueError(f"{len(rows)} pairs")
    except (OSError, RuntimeError, ValueError, IndexError) as error:
      raise UsageError(
        f"folder={str(self.folder)!r}: {path.name} is damaged; delete it and "
        f"make it again with: {self.command()}"
      ) from error
    return rows

  def _record(self) -> np.dtype:
    shape = tuple(self.description["shape"])
    fields = [("noise", "<f4", shape), ("data", "<f4", shape)]
    label = [("label", "<i4")] if self.description["num_classes"] else []
    return np.dtype([*fields, *label])


def identity(description: Mapping[str, Any]) -> dict[str, Any]:
  """Return all that decides pairs, without the teacher's folder.

  Example:
    >>> identity({"workdir": "a", "num": 3, "config": {"train": {}}})
    {'num': 3, 'config': {}}
  """
  rest = {k: v for k, v in description.items() if k != "workdir"}
  config = {k: v for k, v in rest["config"].items() if k in DECISIVE}
  return rest | {"config": config}


def teacher_of(description: Mapping[str, Any]) -> str:
  """Return folder and hash of weights of the teacher of pairs.

  Example:
    >>> teacher_of({"workdir": "runs/a", "parameters": "5eed"})
    'runs/a (parameters 5eed)'
  """
  return f"{description['workdir']} (parameters {description['parameters']})"
