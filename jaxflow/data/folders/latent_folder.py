"""Latents of an image set in a folder, and their origin.

`latents.json` is written first and describes all of the latents; after the last
shard the means and deviations of their channels are added. `decoder.npz` has
the weights that make images of latents, so the folder needs no other.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from jaxflow.data.folders.latent_shards import (
  FLAGS,
  Shards,
  channel_statistics,
  encode_command,
)
from jaxflow.data.folders.shard_folder import ShardFolder
from jaxflow.errors import RunError
from jaxflow.files import save_arrays

__all__ = ["DECODER", "SPLITS", "LatentFolder"]

DECODER = "decoder.npz"
SPLITS = ("train", "test")

# Places do not decide the latents, and the statistics are added last.
_PLACES = ("raw_dir", "data_dir", "autoencoder", "statistics")


@dataclasses.dataclass(frozen=True)
class LatentFolder(ShardFolder):
  """A folder of latents; `create` begins one, `open` reads one.

  Attributes:
    folder: The folder.
    description: `data`, `raw_dir`, `data_dir` of the images, `images` (digest
      of a few of them), `size`, `flip`; `autoencoder`, `parameters` (hash of
      its weights); `shape` of a latent, `num_classes`, `counts` by split,
      `dtype`, `shard_size`; `scale` of the normalised latents, `statistics`
      (`mean` and `std` of every channel) or None while shards are missing.
  """

  FILE: ClassVar[str] = "latents.json"
  COMMAND: ClassVar[str] = "encode"
  NEEDS: ClassVar[tuple[str, ...]] = (
    *(*FLAGS, "images", "parameters", "shape", "num_classes", "counts"),
    "statistics",
  )

  @classmethod
  def create(cls, folder: pathlib.Path, description: Mapping[str, Any]) -> Self:
    """Write the description, without statistics, or find the same one."""
    return super().create(folder, {**description, "statistics": None})

  def split(self, name: str) -> Shards:
    """Return the shards of a split."""
    return Shards(self.folder, self.description, name)

  def command(self) -> str:
    """Return the command that makes the missing shards."""
    return encode_command(self.folder, self.description)

  def write_decoder(self, tensors: Mapping[str, np.ndarray]) -> None:
    """Write the weights that make images of latents, once.

    Args:
      tensors: Arrays by their published names.

    Raises:
      RunError: If they cannot be written.
    """
    path = self.folder / DECODER
    if path.exists():
      return
    try:
      save_arrays(path, tensors)
    except OSError as error:
      raise RunError(
        f"{path} cannot be written ({error.strerror}): make room"
      ) from error

  def finish(self) -> None:
    """Add the statistics of the training latents to the description.

    Raises:
      RunError: If it cannot be written, or a channel is constant.
    """
    mean, std = channel_statistics(self.split("train"))
    if not (std > 0).all():
      raise RunError(
        f"{self.folder}: channel {int(np.argmin(std))} of the latents is "
        "constant; give the weights of another autoencoder"
      )
    statistics = {"mean": mean.tolist(), "std": std.tolist()}
    finished = {**self.description, "statistics": statistics}
    try:
      dataclasses.replace(self, description=finished).write_description()
    except OSError as error:
      raise RunError(
        f"{self.folder / self.FILE} cannot be written ({error.strerror}): make "
        "room"
      ) from error

  def differences(
    self, description: Mapping[str, Any]
  ) -> list[tuple[str, Any, Any]]:
    """Return argument, old and new value where latents would differ."""
    found, both = [], (self.description, description)
    for name in (*FLAGS, *sorted(description)):
      values = [d.get(name) for d in both]
      if name in _PLACES or values[0] == values[1]:
        continue
      argument = f"--{name}"
      if name == "parameters":
        argument = "--autoencoder"
        values = [f"{d['autoencoder']} (parameters {d[name]})" for d in both]
      elif name == "images":
        argument, values = "--data", [_images_of(d) for d in both]
      elif name not in FLAGS:
        argument = f"images of {name}"
      found.append((argument, *values))
    return found


def _images_of(description: Mapping[str, Any]) -> str:
  """Return place and digest of an image set."""
  places = [
    f"--{name}={description[name]}"
    for name in ("raw_dir", "data_dir")
    if description[name] is not None
  ]
  return " ".join([description["data"], *places, description["images"]])
