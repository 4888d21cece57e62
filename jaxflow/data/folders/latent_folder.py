"""Latents of an image set in a folder, and what made them.

`latents.json` is written first and describes all of the latents; after the last
shard the means and deviations of their channels are added. `decoder.npz` has
the weights that make images of latents, so the folder needs no other.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from jaxflow.data.folders import descriptions
from jaxflow.data.folders.latent_shards import (
  FLAGS,
  Shards,
  channel_statistics,
  encode_command,
)
from jaxflow.errors import RunError, UsageError

FILE = "latents.json"
DECODER = "decoder.npz"
SPLITS = ("train", "test")

# What does not decide the latents: where things lie, and what is added last.
_PLACES = ("raw_dir", "data_dir", "autoencoder", "statistics")
_NEEDS = (
  *(*FLAGS, "images", "parameters", "shape", "num_classes", "counts"),
  "statistics",
)


@dataclasses.dataclass(frozen=True)
class LatentFolder:
  """A folder of latents; `create` begins one, `open` reads one.

  Attributes:
    folder: The folder.
    description: What `latents.json` holds: `data`, `raw_dir`, `data_dir` of the
      images, `images` (digest of a few of them), `size`, `flip`; `autoencoder`,
      `parameters` (hash of its weights); `shape` of a latent, `num_classes`,
      `counts` by split, `dtype`, `shard_size`; `scale` of the normalised
      latents, `statistics` (`mean` and `std` of every channel) or None while
      shards are missing.
  """

  folder: pathlib.Path
  description: Mapping[str, Any]

  @classmethod
  def create(cls, folder: pathlib.Path, description: Mapping[str, Any]) -> Self:
    """Write the description, or find the same one in the folder.

    Raises:
      UsageError: If the folder holds other latents, other files, or cannot be
        written.
    """
    description = json.loads(json.dumps({**description, "statistics": None}))
    if descriptions.begin(folder, FILE, description):
      return cls(folder, description)
    found = cls.open(folder, field="--out")
    _check_same(found.description, description, folder)
    return found

  @classmethod
  def open(cls, folder: pathlib.Path, *, field: str) -> Self:
    """Read the description of a folder; `field` names it in messages.

    Raises:
      UsageError: If the folder holds no latents.
    """
    description = descriptions.read(
      folder, FILE, needs=_NEEDS, command="encode", field=field
    )
    return cls(folder, description)

  def split(self, name: str) -> Shards:
    """Return the shards of a split."""
    return Shards(self.folder, self.description, name)

  def command(self) -> str:
    """Return the command that makes what is missing."""
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
    part = path.with_name(f"{path.name}.part")
    arrays: dict[str, Any] = dict(tensors)
    try:
      with part.open("wb") as file:
        np.savez(file, **arrays)
      os.replace(part, path)
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
    description = {**self.description, "statistics": statistics}
    try:
      descriptions.write(self.folder / FILE, description)
    except OSError as error:
      raise RunError(
        f"{self.folder / FILE} cannot be written ({error.strerror}): make room"
      ) from error


def _check_same(
  old: Mapping[str, Any], new: Mapping[str, Any], folder: pathlib.Path
) -> None:
  for name in (*FLAGS, *sorted(new)):
    if name in _PLACES or old.get(name) == new.get(name):
      continue
    given, values = f"--{name}", (old.get(name), new.get(name))
    if name == "parameters":
      given = "--autoencoder"
      values = [
        f"{d['autoencoder']} (parameters {d[name]})" for d in (old, new)
      ]
    elif name == "images":
      given, values = "--data", (_images_of(old), _images_of(new))
    elif name not in FLAGS:
      given = f"images of {name}"
    raise UsageError(
      f"--out={folder} was made with {given}={values[0]}, not {values[1]}: "
      "give another --out, or the old value"
    )


def _images_of(description: Mapping[str, Any]) -> str:
  """Name an image set: where it lies, and the digest of its images."""
  places = [
    f"--{name}={description[name]}"
    for name in ("raw_dir", "data_dir")
    if description[name] is not None
  ]
  return " ".join([description["data"], *places, description["images"]])
