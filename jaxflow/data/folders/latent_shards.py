"""Shards of latents: what is written, what is read, what they are on average.

A shard is a .npy file of consecutive records: the mean and the deviation of a
latent (float16 or float32) and, where there are classes, the label (int32). It
is written to a temporary name and renamed, so a shard that is there is whole.
"""

import dataclasses
import os
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxflow.data.folders import descriptions
from jaxflow.errors import RunError, UsageError

# Fields whose names are flags of `jaxflow encode`, in the order of a command.
FLAGS = (
  *("data", "raw_dir", "data_dir", "autoencoder", "size", "dtype"),
  *("scale", "flip", "shard_size"),
)


@dataclasses.dataclass(frozen=True)
class Shards:
  """The shards of one split.

  Attributes:
    folder: The folder.
    description: As of `LatentFolder`.
    split: "train" or "test".
  """

  folder: pathlib.Path
  description: Mapping[str, Any]
  split: str

  @property
  def shards(self) -> list[tuple[int, int]]:
    """First latent of every shard, and the latent after its last."""
    count = self.description["counts"][self.split]
    return descriptions.spans(count, self.description["shard_size"])

  def missing(self) -> list[int]:
    """Return the numbers of the shards that are not there."""
    return [i for i in range(len(self.shards)) if not self._file(i).exists()]

  def write(
    self,
    shard: int,
    mean: np.ndarray,
    std: np.ndarray,
    label: np.ndarray | None,
  ) -> None:
    """Write one shard, whole or not at all.

    Args:
      shard: Its number.
      mean: Means of its latents [n, h, w, c].
      std: Their deviations, the same shape.
      label: Their classes [n], or None.

    Raises:
      RunError: If a number is not finite as stored, or it cannot be written.
    """
    rows = np.empty(len(mean), self._record())
    with np.errstate(over="ignore"):
      rows["mean"], rows["std"] = mean, std
    if not all(np.isfinite(rows[name]).all() for name in ("mean", "std")):
      raise RunError(
        f"{self._file(shard)}: latents are not finite as "
        f"{self.description['dtype']}: give --dtype=float32, or the weights of "
        "an autoencoder of such images"
      )
    if label is not None:
      rows["label"] = label
    path = self._file(shard)
    part = path.with_name(f"{path.name}.part")
    try:
      with part.open("wb") as file:
        np.save(file, rows)
      os.replace(part, path)
    except OSError as error:
      raise RunError(
        f"{path} cannot be written ({error.strerror}): make room, or the "
        "folder writable; the same command goes on"
      ) from error

  def map(self, shard: int, *, field: str) -> np.ndarray:
    """Return the records of a shard, read from disk where they are touched.

    Args:
      shard: Its number.
      field: The flag or config field that names the folder, for messages.

    Raises:
      UsageError: If it is damaged.
    """
    path, (start, stop) = self._file(shard), self.shards[shard]
    try:
      rows = np.load(path, mmap_mode="r", allow_pickle=False)
      if rows.dtype != self._record() or rows.shape != (stop - start,):
        raise ValueError("it holds other records")
    except (OSError, ValueError, EOFError) as error:
      command = encode_command(self.folder, self.description)
      raise UsageError(
        f"{field}={str(self.folder)!r}: {path.name} is damaged ({error}); "
        f"delete it and make it again with: {command}"
      ) from error
    return rows

  def _record(self) -> np.dtype:
    shape = tuple(self.description["shape"])
    kind = np.dtype(self.description["dtype"]).newbyteorder("<")
    fields: list[tuple] = [("mean", kind, shape), ("std", kind, shape)]
    if self.description["num_classes"]:
      fields.append(("label", "<i4"))
    return np.dtype(fields)

  def _file(self, shard: int) -> pathlib.Path:
    count = len(self.shards)
    return self.folder / f"{self.split}-{shard:05d}-of-{count:05d}.npy"


def channel_statistics(shards: Shards) -> tuple[np.ndarray, np.ndarray]:
  """Return mean and deviation [c] of every channel of drawn latents.

  Of mean + std * eps with unit noise eps: the variance of the means and the
  mean of the variances together.
  """
  total = squares = np.zeros(())
  for shard in range(len(shards.shards)):
    rows = shards.map(shard, field="--out")
    mean, std = (rows[name].astype(np.float64) for name in ("mean", "std"))
    axes = tuple(range(mean.ndim - 1))
    total = total + mean.sum(axes)
    squares = squares + (mean**2 + std**2).sum(axes)
  height, width, _ = shards.description["shape"]
  count = shards.description["counts"][shards.split] * height * width
  mean = total / count
  return mean, np.sqrt(np.maximum(squares / count - mean**2, 0))


def encode_command(folder: pathlib.Path, description: Mapping[str, Any]) -> str:
  """Return the command that makes the missing shards, quoted for a shell.

  Args:
    folder: The folder.
    description: As of `LatentFolder`.

  Example:
    >>> encode_command("my folder", {**dict.fromkeys(FLAGS), "data": "digits"})
    "jaxflow encode --data=digits '--out=my folder'"
  """
  given = {name: description[name] for name in FLAGS}
  flags = [f"--{k}={v}" for k, v in given.items() if v is not None]
  return shlex.join(["jaxflow", "encode", *flags, f"--out={folder}"])
