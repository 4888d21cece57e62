"""Latents as data: normalised samples, and the way back to the autoencoder."""

import dataclasses
import pathlib
from typing import Self

import numpy as np

from jaxflow.data.folders.latent_folder import DECODER, LatentFolder
from jaxflow.errors import UsageError


@dataclasses.dataclass(frozen=True, eq=False)
class LatentSpace:
  """What samples of a latent data set are to its autoencoder.

  A sample is (latent - mean) / std * scale, with the mean and the deviation of
  each channel over the training data.

  Attributes:
    decoder: The file of the decoder's weights.
    mean: Means [c].
    std: Deviations [c].
    scale: Deviation of the samples.
    command: The command that writes what is missing.
  """

  decoder: pathlib.Path
  mean: np.ndarray
  std: np.ndarray
  scale: float
  command: str

  @classmethod
  def of(cls, latents: LatentFolder, *, field: str) -> Self:
    """Read the space of a folder whose shards are all there.

    Args:
      latents: The folder.
      field: The flag or config field that names it, for messages.

    Raises:
      UsageError: If shards, or the decoder, are missing.
    """
    description, folder = latents.description, latents.folder
    if description["statistics"] is None:
      raise UsageError(
        f"{field}={str(folder)!r} is not finished; go on with: "
        f"{latents.command()}"
      )
    if not (folder / DECODER).exists():
      raise UsageError(
        f"{field}={str(folder)!r} has no {DECODER}; write it with: "
        f"{latents.command()}"
      )
    mean, std = (
      np.asarray(description["statistics"][name], np.float32)
      for name in ("mean", "std")
    )
    return cls(
      folder / DECODER, mean, std, description["scale"], latents.command()
    )

  def normalise(self, latents: np.ndarray) -> np.ndarray:
    """Return the samples that latents are.

    Args:
      latents: Latents [n, h, w, c], in the units of the autoencoder.

    Returns:
      Samples of the same shape.
    """
    return (latents - self.mean) * (self.scale / self.std)

  def restore(self, samples: np.ndarray) -> np.ndarray:
    """Return the latents that samples stand for.

    Args:
      samples: Samples [n, h, w, c], of deviation `scale`.

    Returns:
      Latents of the same shape, in the units of the autoencoder.
    """
    return samples * (self.std / self.scale) + self.mean


class Latents:
  """A source of normalised latents that stays on disk.

  A sample is a distribution: beside its mean, "data", `take` gives its
  deviation, "std", from which `Drawn` draws.

  Args:
    latents: The folder.
    split: "train" or "test".
    name: What the data set is called in a config.
    field: The flag or config field that names the folder, for messages.

  Raises:
    UsageError: If shards are missing or damaged.
  """

  def __init__(
    self, latents: LatentFolder, split: str, *, name: str, field: str
  ):
    shards = latents.split(split)
    missing, count = len(shards.missing()), len(shards.shards)
    if missing:
      raise UsageError(
        f"{field}={str(latents.folder)!r}: {count - missing} of {count} shards "
        f"of split {split!r} are there; go on with: {latents.command()}"
      )
    self.name = name
    self.split = split
    self.num_classes: int = latents.description["num_classes"]
    self.shape: tuple[int, ...] = tuple(latents.description["shape"])
    self.space = LatentSpace.of(latents, field=field)
    self._starts = np.asarray([start for start, _ in shards.shards])
    self._count: int = latents.description["counts"][split]
    self._shards = [shards.map(i, field=field) for i in range(count)]

  def __len__(self) -> int:
    """Return the number of samples."""
    return self._count

  def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
    """Read samples, as `Source.take` describes, and their "std"."""
    which = np.searchsorted(self._starts, index, side="right") - 1
    rows = np.empty(len(index), self._shards[0].dtype)
    for shard in np.unique(which):
      chosen = which == shard
      rows[chosen] = self._shards[shard][index[chosen] - self._starts[shard]]
    mean, std = (rows[name].astype(np.float32) for name in ("mean", "std"))
    taken = {
      "data": self.space.normalise(mean),
      "std": std * (self.space.scale / self.space.std),
    }
    if self.num_classes:
      taken["cond"] = rows["label"].astype(np.int32)
    return taken


def open_latents(data_dir: str | None) -> LatentFolder:
  """Open the folder that a config names.

  Args:
    data_dir: The folder, or None.

  Raises:
    UsageError: If it names none, or one without latents.
  """
  if data_dir is None:
    raise UsageError(
      "data.data_dir=None: data.name='latents' needs the folder that `jaxflow "
      "encode` has made; set data.data_dir to it"
    )
  return LatentFolder.open(pathlib.Path(data_dir), field="data.data_dir")
