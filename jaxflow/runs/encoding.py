"""Encode an image set into latents, with the weights of an autoencoder."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax
import numpy as np

from jaxflow import data
from jaxflow.data.folders.writing import (
  created_and_locked,
  write_missing_shards,
)
from jaxflow.data.images import square
from jaxflow.data.loading import SPLITS, reading_threads, reads
from jaxflow.errors import UsageError, arguments_for, named
from jaxflow.parallel import processes, sharding
from jaxflow.parallel.hashing import parameters_hash
from jaxflow.pretrained import Autoencoder, autoencoder_files
from jaxflow.runs.options import option
from jaxflow.types import PyTree

# Options by the field of `data.load` that they are.
_FIELDS = {
  **{x: x for x in ("raw_dir", "data_dir", "dir", "hub", "image", "label")},
  **{"config": "subset", "download": "download"},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncodeOptions:
  """How images are encoded; the command line has a flag for each field."""

  data: str = option("", "the image set: a data.name of a config, or of TFDS")
  raw_dir: str | None = option(None, "folder of the raw files of that set")
  data_dir: str | None = option(
    None, "folder where prepared data sets are kept"
  )
  dir: str | None = option(
    None, "folder of --data=folder, webdataset or huggingface"
  )
  hub: str | None = option(
    None, "name on the Hugging Face hub of --data=huggingface, OWNER/NAME"
  )
  subset: str | None = option(
    None, "config of that set, data.config of a config"
  )
  image: str | None = option(
    None, "column of the pictures, or what ends their names in tar files"
  )
  label: str | None = option(
    None, "feature, column or ending of the labels; none leaves them out"
  )
  download: bool = option(False, "let the set be downloaded")
  autoencoder: str = option(
    "",
    "diffusion_pytorch_model.safetensors or .bin of sd-vae-ft-mse or "
    "sd-vae-ft-ema, or the folder that holds it",
  )
  size: int = option(
    256,
    "height and width of the images, a multiple of 8; others are scaled and "
    "cut in the middle",
  )
  dtype: str = option("float16", "type of stored latents: float16 or float32")
  scale: float = option(1.0, "standard deviation of the normalised latents")
  multiply: float = option(
    0.0,
    "number by which latents are multiplied, 0.18215 for DiT, SiT and MeanFlow "
    "as published; by default every channel is normalised",
  )
  flip: bool = option(False, "add the latents of mirrored training images")
  batch_size: int = option(64, "images at a time over all devices")
  shard_size: int = option(4096, "latents per file")

  def __post_init__(self) -> None:
    """Raise UsageError if a value is impossible."""
    for name, what in (
      ("data", "the name of an image set"),
      ("autoencoder", f"a file: {autoencoder_files.SOURCE}"),
    ):
      if not getattr(self, name):
        raise UsageError(f"{name} is missing: give {what}")
    for name in ("size", "batch_size", "shard_size"):
      if getattr(self, name) < 1:
        raise UsageError(f"{name}={getattr(self, name)}: give at least 1")
    if self.dtype not in ("float16", "float32"):
      raise UsageError(f"dtype={self.dtype}: give float16 or float32")
    if not 0 < self.scale < float("inf"):
      raise UsageError(f"scale={self.scale}: give a number above 0")
    if not 0 <= self.multiply < float("inf"):
      raise UsageError(f"multiply={self.multiply}: give a number above 0")
    if self.multiply and self.scale != 1:
      raise UsageError(
        f"multiply={self.multiply} with scale={self.scale}: give one of them"
      )


def encode(
  out: pathlib.Path,
  options: EncodeOptions,
  *,
  log: Callable[[str], None] = print,
) -> bool:
  """Write the latents of an image set, or go on at the first missing shard.

  Return whether all latents are there: False after an interruption.
  """
  sources = processes.together(lambda: _sources(options))
  file = options.autoencoder
  with named(path="autoencoder", tensors=f"autoencoder={file}"):
    tensors = processes.together(
      lambda: autoencoder_files.read_tensors(pathlib.Path(file))
    )
    model, params = autoencoder_files.from_tensors(tensors)
  description = _describe(options, model, params, sources)
  create = functools.partial(data.LatentFolder.create, out, description)
  with named(folder="out"), created_and_locked(out, create):
    latents = data.LatentFolder.open(out)
    decoder = autoencoder_files.select_parts(tensors, autoencoder_files.DECODER)
    processes.once(lambda: latents.write_decoder(decoder))
    mesh = sharding.make_mesh()
    draw = _make_draw(model, params, mesh)
    for split, source in sources.items():
      done = write_missing_shards(
        latents.files(split),
        functools.partial(_batch, source, options.size, draw, mesh),
        functools.partial(latents.write, split),
        batch_size=options.batch_size,
        devices=sharding.row_shards(mesh),
        unit="latents",
        check=latents.check_unchanged,
        log=lambda line, split=split: log(f"{split}: {line}"),
      )
      if not done:
        return False
    if latents.description["statistics"] is None:
      processes.once(latents.finish)
  log(f"done: --config.data.name=latents --config.data.data_dir={out}")
  return True


def _sources(options: EncodeOptions) -> dict[str, data.Source]:
  """Load the splits of the image set."""
  return {split: _images(options, split) for split in SPLITS}


def _images(options: EncodeOptions, split: str) -> data.Source:
  """Load a split of the image set."""
  given = {field: getattr(options, name) for field, name in _FIELDS.items()}
  shown = {f"data.{field}": name for field, name in _FIELDS.items()}
  with arguments_for({"data.name": "data", "data.size": "size", **shown}):
    source = data.load(
      options.data,
      split,
      **given,
      # Images are read once; those of other sizes are cut where they are read.
      size=options.size if reads(options.data, "size") else None,
      ram_gib=0.0,
    )
  if len(source.shape) != 3 or source.shape[2] not in (1, 3):
    raise UsageError(
      f"data={options.data}: its samples have shape {source.shape}; give a "
      "set of images, (height, width, 1 or 3)"
    )
  if not source.num_classes and "cond" in source.take(np.arange(1)):
    raise UsageError(
      f"data={options.data}: its conditions are no classes, and latents keep "
      "classes only: give a set with classes, or without conditions"
    )
  return source


def _describe(
  options: EncodeOptions,
  model: Autoencoder,
  params: PyTree,
  sources: dict[str, data.Source],
) -> dict[str, Any]:
  """Return the content of `latents.json`."""
  if options.size % model.factor:
    raise UsageError(
      f"size={options.size}: give a multiple of {model.factor}, by which the "
      "autoencoder divides it"
    )
  side = options.size // model.factor
  given = dataclasses.asdict(options)
  del given["batch_size"], given["download"]
  if not options.multiply:  # Folders of earlier versions do not say it.
    del given["multiply"]
  return {
    **given,
    "images": data.digest(sources.values()),
    "parameters": parameters_hash(params),
    "shape": [side, side, model.channels],
    "num_classes": sources["train"].num_classes,
    "counts": {
      split: len(source) * (1 + (options.flip and split == "train"))
      for split, source in sources.items()
    },
  }


def _make_draw(
  model: Autoencoder, params: PyTree, mesh: jax.sharding.Mesh
) -> Callable[[PyTree], PyTree]:
  """Return `images -> (mean, std)` on all devices, compiled once."""
  encoder = {name: params[name] for name in autoencoder_files.ENCODER}
  placed = data.to_devices(encoder, sharding.replicated(mesh))
  jitted = jax.jit(model.encode, out_shardings=sharding.row_sharding(mesh))
  return functools.partial(jitted, placed)


def _batch(
  source: data.Source,
  size: int,
  draw: Callable[[PyTree], PyTree],
  mesh: jax.sharding.Mesh,
  first: int,
  number: int,
) -> list[np.ndarray]:
  """Return mean, std and, where there are classes, labels from a row on."""
  index = np.arange(first, first + number)
  # Each process reads what its devices encode.
  threads = reading_threads()
  pieces = np.array_split(index[sharding.local_rows(mesh, number)], threads)
  with futures.ThreadPoolExecutor(threads) as executor:
    read = functools.partial(_read, source, size)
    parts = list(executor.map(read, [piece for piece in pieces if piece.size]))
  rows = {name: np.concatenate([x[name] for x in parts]) for name in parts[0]}
  placed = data.to_devices(rows, sharding.row_sharding(mesh))
  label = [placed["cond"]] if "cond" in rows else []
  return processes.gather([*draw(placed["data"]), *label])


def _read(
  source: data.Source, size: int, index: np.ndarray
) -> dict[str, np.ndarray]:
  """Return images of one size; image i + N is image i of N, mirrored."""
  count = len(source)
  rows = source.take(index % count)
  images = square(rows["data"], size)
  mirrored = index // count % 2 == 1
  images[mirrored] = images[mirrored, :, ::-1]
  return rows | {"data": images}
