"""The data sets that a config can name."""

import functools
import inspect
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from jaxflow import plugins
from jaxflow.data.folders.latent_folder import LatentFolder
from jaxflow.data.folders.latents import Latents, LatentSpace
from jaxflow.data.sets import toy
from jaxflow.data.source import Dataset, Source, from_arrays
from jaxflow.errors import UsageError, did_you_mean, named
from jaxflow.files import expanded

SPLITS = ("train", "test")
FASHION_MNIST_DIR = "/usr/share/datasets/fashion-mnist"

_RING_SAMPLES = 16_384
# Data sets that may be given `raw_dir`.
_WITH_RAW_DIR = ("fashion_mnist", "mnist", "given")


def load(
  name: str,
  split: str,
  *,
  raw_dir: str | None = None,
  data_dir: str | None = None,
  size: int | None = None,
  ram_gib: float = 4.0,
  threads: int = 0,
  download: bool = False,
) -> Source:
  """Open one split of a named data set.

  "ring" is sampled. "digits", from scikit-learn, and "fashion_mnist" and
  "mnist", from four IDX files, are prepared once by TFDS and then read from
  disk. Any other name is that of an image set of TFDS, which has to be
  prepared. "latents" are those in the folder `data_dir`, which `jaxflow encode`
  makes. Nothing is downloaded unless asked for.

  Args:
    name: A key of `DATASETS`, the name of an image set in TFDS, or that of a
      plug-in: a function that takes the split, and by keyword those of
      `data_dir`, `size`, `ram_gib` and `threads` that it names.
    split: "train" or "test".
    raw_dir: Folder of the IDX files; "fashion_mnist" has the folder of the
      Debian package as its default, "mnist" has none.
    data_dir: Where prepared data sets are kept; by default where TFDS keeps
      them ($TFDS_DATA_DIR or ~/tensorflow_datasets). Of "latents", their
      folder.
    size: Height and width to which images of TFDS are cropped and scaled;
      None keeps those of sets whose images are of one size.
    ram_gib: Sets of TFDS that need up to so many GiB as float32 are read into
      memory, larger ones stay on disk.
    threads: Threads that read images into memory; 0 for one a core, at
      most 16.
    download: Whether to download and prepare a set of TFDS that is not there.

  Returns:
    A `Dataset` if the split is in memory, else a source that reads from disk.
    Images are in [-1, 1]. Latents have the deviation that `jaxflow encode
    --scale` set; their rows also have "std", from which batches are drawn.

  Raises:
    UsageError: A name, split or folder is wrong, or the set is not there.

  Example:
    >>> load("ring", "train").shape
    (2,)
  """
  if split not in SPLITS:
    raise UsageError(
      f"data.split={split!r}: {did_you_mean(split, SPLITS)}choose one of"
      f" {', '.join(SPLITS)}"
    )
  if size is not None and name in DATASETS:
    raise UsageError(
      f"data.size={size}: the samples of data.name={name!r} have one size;"
      " remove data.size"
    )
  if raw_dir is not None and name not in _WITH_RAW_DIR:
    raise UsageError(
      f"data.raw_dir={raw_dir!r}: data.name={name!r} reads no raw files;"
      " remove data.raw_dir"
    )
  raw_dir = expanded("data.raw_dir", raw_dir)
  data_dir = expanded("data.data_dir", data_dir)
  if name in DATASETS:
    return DATASETS[name](split, raw_dir, data_dir)
  with named(name="data.name"):
    own = plugins.find("data", name)
  if own is not None:
    given = {
      "data_dir": data_dir,
      "size": size,
      "ram_gib": ram_gib,
      "threads": threads or reading_threads(),
    }
    return _of_plugin(own, name, split, given)
  # TFDS takes most of a second to import: only the sets that need it pay.
  from jaxflow.data.sets import tfds_builders, tfds_images

  source = tfds_images.load(
    name,
    split,
    data_dir=data_dir,
    size=size,
    memory=int(ram_gib * 2**30),
    threads=threads or reading_threads(),
    download=download,
  )
  if source is None:
    known = (*DATASETS, *plugins.registered("data"))
    hint = did_you_mean(name, (*known, *tfds_builders.names()))
    raise UsageError(
      f"data.name={name!r}: {hint}choose one of {', '.join(known)}, or an"
      " image set of TFDS, 'cifar10' for instance"
    )
  return source


def _of_plugin(
  make: Any, name: str, split: str, given: Mapping[str, Any]
) -> Source:
  """Open one split of a plug-in's set; it takes those arguments it names."""
  start = f"data.name={name!r}"
  if not callable(make):
    raise UsageError(
      f"{start} is of type {type(make).__name__}: give a function of the split"
    )
  takes = inspect.signature(make).parameters
  unused = [k for k in ("data_dir", "size") if given[k] and k not in takes]
  if unused:
    raise UsageError(
      f"data.{unused[0]}={given[unused[0]]!r}: {start} does not take it;"
      f" remove data.{unused[0]}"
    )
  try:
    made: Any = make(split, **{k: v for k, v in given.items() if k in takes})
  except UsageError:
    raise
  except Exception as error:
    raise UsageError(
      f"{start} raises {type(error).__name__} ({error}): correct the plug-in; "
      "--debug shows where"
    ) from error
  if not all(hasattr(made, x) for x in ("take", "shape", "num_classes")):
    raise UsageError(
      f"{start} returns {type(made).__name__}: return a jaxflow.data.Source, "
      "jaxflow.data.from_arrays makes one"
    )
  return made


def allowed_dir(name: str, stored_dir: str | None) -> str | None:
  """Return the `data_dir` of a stored config, which anyone may have written.

  It is None where TFDS does not look by itself: sets that are prepared here
  need no other folder, and sets of TFDS raise UsageError.
  """
  if stored_dir is None:
    return None
  from jaxflow.data.sets import tfds_builders

  if "\0" not in stored_dir and tfds_builders.is_known(stored_dir):
    return stored_dir
  if name in DATASETS:
    return None
  raise UsageError(
    f"data.data_dir={stored_dir!r} stands in the config of a run, which anyone "
    "may have written: if you trust that folder, name it with "
    "--config.data.data_dir, or in the environment with TFDS_DATA_DIR"
  )


def reading_threads() -> int:
  """Return how many threads read data by default: one a core, at most 16."""
  return min(os.cpu_count() or 1, 16)


def latent_space(name: str, data_dir: str | None) -> LatentSpace | None:
  """Return the latent space of a data set, or None if samples are images.

  Raises:
    UsageError: If the data set lacks its decoder.

  Example:
    >>> latent_space("ring", None) is None
    True
  """
  if name != "latents":
    return None
  with named(folder="data.data_dir"):
    return LatentSpace.of(_open_latents(data_dir))


def known_mixture(name: str) -> toy.Mixture | None:
  """Return the true distribution of a data set where it is known.

  Example:
    >>> known_mixture("ring").means.shape, known_mixture("digits")
    ((8, 2), None)
  """
  return toy.ring_mixture() if name == "ring" else None


def _ring(split: str, raw_dir: str | None, data_dir: str | None) -> Dataset:
  del raw_dir, data_dir  # Sampled, never stored.
  mixture = toy.ring_mixture()
  data, component = mixture.sample(_RING_SAMPLES, seed=SPLITS.index(split))
  classes = len(mixture.weights)
  return from_arrays(
    data, component, num_classes=classes, name="ring", split=split
  )


def _digits(split: str, raw_dir: str | None, data_dir: str | None) -> Dataset:
  from jaxflow.data.sets import gray_images

  del raw_dir
  return gray_images.load_digits(split, data_dir)


def _idx(
  split: str, raw_dir: str | None, data_dir: str | None, *, name: str
) -> Dataset:
  from jaxflow.data.sets import gray_images

  if raw_dir is None and name == "fashion_mnist":
    raw_dir = FASHION_MNIST_DIR
  if raw_dir is None:
    raise UsageError(
      "data.raw_dir=None: data.name='mnist' needs the folder that holds the"
      " four MNIST IDX files; set data.raw_dir to it"
    )
  return gray_images.load_idx(name, split, raw_dir, data_dir)


def _given(split: str, raw_dir: str | None, data_dir: str | None) -> Source:
  """Stand for data that the caller passes."""
  del raw_dir, data_dir
  raise UsageError(
    f"data.name='given': the run has data of yours: pass its {split} split "
    "again, data={'train': ..., 'test': ...}"
  )


def _latents(split: str, raw_dir: str | None, data_dir: str | None) -> Source:
  del raw_dir
  with named(folder="data.data_dir"):
    return Latents(_open_latents(data_dir), split, name="latents")


def _open_latents(data_dir: str | None) -> LatentFolder:
  if data_dir is None:
    raise UsageError(
      "folder=None: data.name='latents' needs the folder that `jaxflow encode` "
      "has made; set data.data_dir to it"
    )
  return LatentFolder.open(pathlib.Path(data_dir))


# The arguments are split, raw_dir and data_dir, as of `load`.
DATASETS: dict[str, Callable[[str, str | None, str | None], Source]] = {
  "ring": _ring,
  "digits": _digits,
  "given": _given,
  "fashion_mnist": functools.partial(_idx, name="fashion_mnist"),
  "mnist": functools.partial(_idx, name="mnist"),
  "latents": _latents,
}
