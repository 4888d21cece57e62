"""Latents as data: normalised samples, and the way back to the autoencoder."""

import dataclasses
import functools
import pathlib
from typing import Any, Self

import numpy as np

from jaxflow.data.folders.latent_folder import DECODER, LatentFolder
from jaxflow.errors import UsageError

# Shards of a split that are open at once: systems allow a process 1,024 files.
_OPEN = 256


@dataclasses.dataclass(frozen=True, eq=False)
class LatentSpace:
  """Normalisation of latents, and the decoder of their autoencoder.

  A sample is (latent - mean) / std * scale, with the mean and the deviation of
  each channel over the training data.

  Attributes:
    decoder: The file of the decoder's weights.
    mean: Means [c].
    std: Deviations [c].
    scale: Deviation of the samples.
    command: The command that writes missing files.
  """

  decoder: pathlib.Path
  mean: np.ndarray
  std: np.ndarray
  scale: float
  command: str

  @classmethod
  def of(cls, latents: LatentFolder) -> Self:
    """Read the space; raise UsageError without all shards and a decoder."""
    description, folder = latents.description, latents.folder
    command, decoder = latents.command(), folder / DECODER
    if description["statistics"] is None:
      raise UsageError(
        f"folder={str(folder)!r} is not finished; go on with: {command}"
      )
    if not decoder.exists():
      raise UsageError(
        f"folder={str(folder)!r} has no {DECODER}; write it with: {command}"
      )
    latents.check_unchanged([DECODER])
    mean, std = (
      np.asarray(description["statistics"][name], np.float32)
      for name in ("mean", "std")
    )
    return cls(decoder, mean, std, description["scale"], command)

  def normalise(self, latents: np.ndarray) -> np.ndarray:
    """Return the samples of latents [n, h, w, c], of the same shape."""
    return (latents - self.mean) * (self.scale / self.std)

  def restore(self, samples: Any) -> Any:
    """Return the latents of samples [n, h, w, c], of NumPy or of JAX."""
    scale, mean = (
      np.reshape(x, (1, 1, 1, -1)) for x in (self.std / self.scale, self.mean)
    )
    return samples * scale + mean


class Latents:
  """A source of normalised latents that stays on disk.

  A sample is a distribution: beside its mean, "data", `take` gives its
  deviation, "std", from which `SampledBatches` draws. `name` is that of the
  data set in a config.

  Raises:
    UsageError: If shards are missing or damaged.
  """

  def __init__(self, latents: LatentFolder, split: str, *, name: str):
    files = latents.files(split)
    latents.check_complete(files, f" of split {split!r}")
    self.name = name
    self.split = split
    self.num_classes: int = latents.description["num_classes"]
    self.shape: tuple[int, ...] = tuple(latents.description["shape"])
    self.space: LatentSpace = LatentSpace.of(latents)
    self._count = files.num
    self._record = latents.record
    self._starts = np.arange(0, files.num, files.size)
    self._shard = functools.lru_cache(_OPEN)(
      functools.partial(latents.memory_map, split)
    )
    for shard in range(files.count):
      self._shard(shard)
    latents.check_unchanged(files.names)

  def __len__(self) -> int:
    """Return the number of samples."""
    return self._count

  def labels(self) -> np.ndarray:
    """Return the classes of all samples, [N], without reading the latents."""
    shards = (self._shard(i) for i in range(len(self._starts)))
    return np.concatenate([x["label"] for x in shards]).astype(np.int32)

  def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
    """Read samples, as `Source.take` describes, and their "std"."""
    which = np.searchsorted(self._starts, index, side="right") - 1
    rows = np.empty(len(index), self._record)
    for shard in np.unique(which):
      chosen = which == shard
      opened = self._shard(int(shard))
      rows[chosen] = opened[index[chosen] - self._starts[shard]]
    mean, std = (rows[name].astype(np.float32) for name in ("mean", "std"))
    sample = {
      "data": self.space.normalise(mean),
      "std": std * (self.space.scale / self.space.std),
    }
    if self.num_classes:
      sample["cond"] = rows["label"].astype(np.int32)
    return sample
