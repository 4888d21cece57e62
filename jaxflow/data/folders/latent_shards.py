"""Shards of latents, and the statistics of their channels.

A shard is a .npy file of consecutive records: the mean and the deviation of a
latent (float16 or float32) and, where there are classes, the label (int32). It
is written to a temporary name and renamed, so a shard that is there is whole.
"""

import dataclasses
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxflow.data.folders.shard_folder import ShardFiles
from jaxflow.errors import RunError, UsageError

__all__ = ["FLAGS", "Shards", "channel_statistics", "encode_command"]

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
  def files(self) -> ShardFiles:
    """The files of the shards."""
    num = self.description["counts"][self.split]
    size = self.description["shard_size"]
    return ShardFiles(self.folder, self.split, ".npy", num, size)

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
        f"{self.files.path(shard)}: latents are not finite as "
        f"{self.description['dtype']}: give --dtype=float32, or the weights of "
        "an autoencoder of such images"
      )
    if label is not None:
      rows["label"] = label

    def save(path: pathlib.Path) -> None:
      with path.open("wb") as file:
        np.save(file, rows)

    self.files.write(shard, save)

  def memory_map(self, shard: int) -> np.ndarray:
    """Return the records of a shard, read from disk where they are touched.

    Args:
      shard: Its number.

    Raises:
      UsageError: If the file is damaged.
    """
    path, (start, stop) = self.files.path(shard), self.files.spans[shard]
    try:
      rows = np.load(path, mmap_mode="r", allow_pickle=False)
      if rows.dtype != self._record() or rows.shape != (stop - start,):
        raise ValueError("it holds other records")
    except (OSError, ValueError, EOFError) as error:
      command = encode_command(self.folder, self.description)
      raise UsageError(
        f"folder={str(self.folder)!r}: {path.name} is damaged ({error}); "
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


def channel_statistics(shards: Shards) -> tuple[np.ndarray, np.ndarray]:
  """Return mean and deviation [c] of every channel of drawn latents.

  Of mean + std * eps with unit noise eps: the variance of the means and the
  mean of the variances together.
  """
  total = squares = np.zeros(())
  for shard in range(len(shards.files.spans)):
    rows = shards.memory_map(shard)
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
