"""Pairs of noise and data in a folder: shards of records, and their origin.

`pairs.json` is written first and describes all of the pairs; two folders with
one digest hold the same pairs. A shard is an ArrayRecord file of consecutive
pairs, one record each: noise, data (float32) and, where there are classes, the
label (int32), or the arrays of the condition that a network declares. It is
written to a temporary name and renamed, so a shard that is there is whole, and
the shards that are not there are all that is missing.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from array_record.python.array_record_module import (
  ArrayRecordReader,
  ArrayRecordWriter,
)

from jaxflow.conditions import leaves
from jaxflow.data.folders.shard_folder import ShardFiles, ShardFolder
from jaxflow.data.source import Dataset, from_arrays
from jaxflow.options import Count, Finite, Natural
from jaxflow.types import PyTree

# Sections of the teacher's config that decide the output of its network.
_DECISIVE = ("method", "path", "model", "parameterization", "loss")

# Fields whose names are flags of `jaxflow pairs`, in the order of a command.
_FLAGS = (
  *("workdir", "step", "ema", "num", "solver", "nfe", "guidance"),
  *("seed", "shard_size"),
)


_NAME = {"name": str}
_HOLDS = {
  **dict.fromkeys(("workdir", "ema", "solver", "parameters"), str),
  **dict.fromkeys(("num", "nfe", "shard_size"), Count),
  **dict.fromkeys(("step", "seed", "num_classes"), Natural),
  "shape": [Count],
  "guidance": Finite,
  "grid": _NAME,
  "config": {"data": _NAME, "sample": {"grid": _NAME}},
}


@dataclasses.dataclass(frozen=True)
class Pairs(ShardFolder):
  """A folder of pairs; `Pairs.create` begins one, `Pairs.open` reads one.

  Attributes:
    folder: The folder.
    description: `workdir`, `step`, `ema` of the teacher, `parameters` (hash of
      its weights), `config`; `num`, `solver`, `nfe`, `guidance`, `grid`,
      `seed`; `shape`, `num_classes`, `shard_size`. Of conditions that a network
      declares `cond`, type and shape by name, and `conditions`, a hash of the
      data whose conditions these are.
  """

  FILE: ClassVar[str] = "pairs.json"
  COMMAND: ClassVar[str] = "pairs"
  FLAGS: ClassVar[tuple[str, ...]] = _FLAGS
  HOLDS: ClassVar[Mapping[str, Any]] = _HOLDS
  ARRAYS: ClassVar[tuple[str, ...]] = ("noise", "data")

  @staticmethod
  def identity(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that decides pairs, without the teacher's folder.

    Example:
      >>> Pairs.identity({"workdir": "a", "num": 3, "config": {"train": {}}})
      {'num': 3, 'config': {}}
    """
    rest = {k: v for k, v in description.items() if k != "workdir"}
    config = {k: v for k, v in rest["config"].items() if k in _DECISIVE}
    return rest | {"config": config}

  @staticmethod
  def argument(name: str, description: Mapping[str, Any]) -> tuple[str, Any]:
    """Return how the user calls a name of the description, and its value."""
    if name in ("parameters", "config"):
      return "--workdir", teacher_of(description)
    prefix = "--" if name in _FLAGS else "the teacher's sample."
    return prefix + name, repr(description.get(name))

  def extra_flags(self) -> list[str]:
    """Return the grid, if another than the teacher's was asked for."""
    name = self.description["grid"]["name"]
    teachers = self.description["config"]["sample"]["grid"]["name"]
    return [] if name == teachers else [f"--grid={name}"]

  @property
  def digest(self) -> str:
    """Hash of all that decides the pairs, 16 hexadecimal digits."""
    text = json.dumps(self.identity(self.description), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

  @property
  def files(self) -> ShardFiles:
    """The files of the shards."""
    num, size = self.description["num"], self.description["shard_size"]
    return ShardFiles(self.folder, "pairs", ".array_record", num, size)

  def write(self, shard: int, arrays: Sequence[np.ndarray]) -> None:
    """Write one shard, whole or not at all.

    Args:
      shard: Its number.
      arrays: Its noise [n, ...], the samples that the teacher makes of it, of
        the same shape, and its classes [n], or the arrays of its conditions,
        where there are any.

    Raises:
      RunError: If it cannot be written.
    """

    def save(path: pathlib.Path) -> None:
      writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
      for row in self.rows(arrays):
        writer.write(row.tobytes())
      writer.close()

    self.files.write(shard, save)

  def load(self, cond: PyTree = None) -> Dataset:
    """Read all pairs into memory, as a data set with noise.

    Args:
      cond: A condition, for its structure, where they have others than classes.

    Raises:
      UsageError: If shards are missing or damaged.
    """
    self.check_complete(self.files)
    self.check_unchanged(self.files.names)
    classes = self.description["num_classes"]
    rows = np.concatenate([self._read(i) for i in range(self.files.count)])
    return from_arrays(
      rows["data"],
      rows["label"] if classes else None,
      num_classes=classes,
      name=str(self.folder),
      noise=rows["noise"],
      cond=jax.tree.unflatten(
        jax.tree.structure(cond), [rows[f"cond/{k}"] for k in leaves(cond)]
      ),
    )

  def _read(self, shard: int) -> np.ndarray:
    path, (start, stop) = self.files.path(shard), self.files.span(shard)
    try:
      reader = ArrayRecordReader(str(path))
      records = b"".join(reader.read_all())
      reader.close()
      rows = np.frombuffer(records, self.record)
      if len(rows) != stop - start:
        raise ValueError(f"{len(rows)} pairs")
    except (OSError, RuntimeError, ValueError, IndexError) as error:
      raise self.damaged(path) from error
    return rows


def teacher_of(description: Mapping[str, Any]) -> str:
  """Return folder and hash of weights: `runs/a (parameters 5eed)`."""
  return f"{description['workdir']} (parameters {description['parameters']})"
