"""Latents of an image set in a folder, and their origin.

`latents.json` is written first and describes all of the latents; after the last
shard the means and deviations of their channels are added. `decoder.npz` has
the weights that make images of latents, so the folder needs no other.

A shard is a .npy file of consecutive records: the mean and the deviation of a
latent (float16 or float32) and, where there are classes, the label (int32).
"""

import dataclasses
import pathlib
import tokenize
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

import numpy as np

from jaxflow.data.folders.shard_folder import ShardFiles, ShardFolder
from jaxflow.errors import RunError
from jaxflow.files import list_sums, save_arrays
from jaxflow.options import Count, Finite, Natural, Positive, Range

DECODER = "decoder.npz"
# Errors from reading a damaged .npy file.
_DAMAGE = OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError

# Fields whose names are flags of `jaxflow encode`, in the order of a command.
_IMAGES = ("raw_dir", "data_dir", "dir", "hub")
_PARTS = ("subset", "image", "label")
_FLAGS = (
  *("data", *_IMAGES, *_PARTS, "autoencoder", "size", "dtype"),
  *("scale", "multiply", "flip", "shard_size"),
)
# Places do not decide the latents, and the statistics are added last.
_PLACES = (*_IMAGES, "autoencoder", "statistics")
_TYPES = Range("float16 or float32", lambda x: x in ("float16", "float32"))


_HOLDS = {
  **dict.fromkeys(("data", "images", "autoencoder", "parameters"), str),
  **dict.fromkeys((*_IMAGES, *_PARTS), str | None),
  **dict.fromkeys(("size", "shard_size"), Count),
  "counts": dict.fromkeys(("train", "test"), Count),
  "num_classes": Natural,
  "shape": [Count],
  "flip": bool,
  "dtype": Annotated[str, _TYPES],
  "scale": Positive,
  "multiply": (Positive, type(None)),
  "statistics": ({"mean": [Finite], "std": [Positive]}, type(None)),
}


@dataclasses.dataclass(frozen=True)
class LatentFolder(ShardFolder):
  """A folder of latents; `create` begins one, `open` reads one.

  Attributes:
    folder: The folder.
    description: `data`, `raw_dir`, `data_dir`, `dir`, `hub`, `subset`, `image`,
      `label` of the images, `images` (digest of a few of them), `size`, `flip`;
      `autoencoder`, `parameters`
      (hash of its weights); `shape` of a latent, `num_classes`, `counts` by
      split, `dtype`, `shard_size`; `scale` of the normalised latents,
      `statistics` (`mean` and `std` of every channel) or None while shards are
      missing; mean 0 and deviation `1 / multiply` where `multiply` is given.
  """

  FILE: ClassVar[str] = "latents.json"
  COMMAND: ClassVar[str] = "encode"
  FLAGS: ClassVar[tuple[str, ...]] = _FLAGS
  HOLDS: ClassVar[Mapping[str, Any]] = _HOLDS
  ARRAYS: ClassVar[tuple[str, ...]] = ("mean", "std")

  @classmethod
  def create(cls, folder: pathlib.Path, description: Mapping[str, Any]) -> Self:
    """Write the description, without statistics, or find the same one."""
    return super().create(folder, {**description, "statistics": None})

  @staticmethod
  def identity(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a description that decides the latents."""
    return {k: v for k, v in description.items() if k not in _PLACES}

  @staticmethod
  def argument(name: str, description: Mapping[str, Any]) -> tuple[str, Any]:
    """Return how the user calls a name of the description, and its value."""
    value = description.get(name)
    if name == "parameters":
      return "--autoencoder", f"{description['autoencoder']} ({name} {value})"
    if name == "images":
      dirs = {k: description.get(k) for k in _IMAGES}
      places = [f"--{k}={v}" for k, v in dirs.items() if v is not None]
      return "--data", " ".join([description["data"], *places, str(value)])
    return f"--{name}" if name in _FLAGS else f"images of {name}", value

  def files(self, split: str) -> ShardFiles:
    """Return the files of the shards of a split."""
    num, size = self.description["counts"], self.description["shard_size"]
    return ShardFiles(self.folder, split, ".npy", num[split], size)

  def write(self, split: str, shard: int, arrays: Sequence[np.ndarray]) -> None:
    """Write one shard, whole or not at all.

    Args:
      split: "train" or "test".
      shard: Its number.
      arrays: Means of its latents [n, h, w, c], their deviations, and their
        classes [n] where there are any.

    Raises:
      RunError: If a number is not finite as stored, or it cannot be written.
    """
    with np.errstate(over="ignore"):
      rows = self.rows(arrays)
    files = self.files(split)
    if not all(np.isfinite(rows[name]).all() for name in self.ARRAYS):
      raise RunError(
        f"{files.path(shard)}: latents are not finite as "
        f"{self.description['dtype']}: give --dtype=float32, or the weights of "
        "an autoencoder of such images"
      )

    def save(path: pathlib.Path) -> None:
      with path.open("wb") as file:
        np.save(file, rows)

    files.write(shard, save)

  def memory_map(self, split: str, shard: int) -> np.ndarray:
    """Return the records of a shard, read from disk where they are touched."""
    files = self.files(split)
    path, (start, stop) = files.path(shard), files.span(shard)
    try:
      rows = np.load(path, mmap_mode="r", allow_pickle=False)
      if rows.dtype != self.record or rows.shape != (stop - start,):
        raise ValueError("it holds other records")
    except _DAMAGE as error:
      raise self.damaged(path, f" ({error})") from error
    return rows

  def write_decoder(self, tensors: Mapping[str, np.ndarray]) -> None:
    """Write the weights that make images of latents, by name, once."""
    path = self.folder / DECODER
    if not path.exists():
      save_arrays(path, tensors)
      list_sums(self.folder, {DECODER: path})

  def finish(self) -> None:
    """Add the statistics of the training latents to the description.

    Raises:
      RunError: If it cannot be written, or a channel is constant.
    """
    self.check_unchanged(self.files("train").names)
    mean, std = self._channel_statistics()
    if (factor := self.description.get("multiply")) is not None:
      mean, std = np.zeros_like(mean), np.full_like(std, 1 / factor)
    if not (std > 0).all():
      raise RunError(
        f"{self.folder}: channel {int(np.argmin(std))} of the latents is "
        "constant; give the weights of another autoencoder"
      )
    statistics = {"mean": mean.tolist(), "std": std.tolist()}
    finished = {**self.description, "statistics": statistics}
    dataclasses.replace(self, description=finished).write_description()

  def _channel_statistics(self) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation [c] of the channels of training latents.

    Of mean + std * eps with unit noise eps: the variance of the means and the
    mean of the variances together.
    """
    total = squares = np.zeros(())
    for shard in range(self.files("train").count):
      rows = self.memory_map("train", shard)
      mean, std = (rows[name].astype(np.float64) for name in self.ARRAYS)
      axes = tuple(range(mean.ndim - 1))
      total = total + mean.sum(axes)
      squares = squares + (mean**2 + std**2).sum(axes)
    height, width, _ = self.description["shape"]
    count = self.description["counts"]["train"] * height * width
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 0))
