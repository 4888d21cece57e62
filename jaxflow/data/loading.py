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
from jaxflow.data.pictures import WHITE, Colour
from jaxflow.data.sets import picture_folder, toy
from jaxflow.data.source import (
  Dataset,
  Source,
  from_arrays,
  held_out,
  without_labels,
)
from jaxflow.errors import UsageError, did_you_mean, named
from jaxflow.files import expanded

SPLITS = ("train", "test")
CROPS = ("centre", "random")
FASHION_MNIST_DIR = "/usr/share/datasets/fashion-mnist"

_RING_SAMPLES = 16_384
# What a set may pass over without a word: it is the same without.
_HARMLESS = ("ram_gib", "threads", "download", "conditional")


def load(
  name: str,
  split: str,
  *,
  raw_dir: str | None = None,
  data_dir: str | None = None,
  dir: str | None = None,
  size: int | None = None,
  channels: int | None = None,
  background: Colour = WHITE,
  crop: str = "centre",
  label: str | None = None,
  conditional: bool = True,
  splits: Mapping[str, str | None] = {},
  test_share: float | None = None,
  max_broken: int = 0,
  ram_gib: float = 4.0,
  threads: int = 0,
  download: bool = False,
) -> Source:
  """Open one split of a named data set.

  "ring" is sampled. "digits", from scikit-learn, and "fashion_mnist" and
  "mnist", from four IDX files, are prepared once by TFDS and then read from
  disk. "folder" are the pictures in the folder `dir`. "latents" are those in
  the folder `data_dir`, which `jaxflow encode` makes. Any other name is that of
  an image set of TFDS, which has to be prepared. Nothing is downloaded unless
  asked for.

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
    dir: Folder of pictures, in class folders or not.
    size: Height and width to which pictures are cropped and scaled; None keeps
      those of sets whose pictures are of one size.
    channels: 1 for grey, 3 for RGB, 2 or 4 for these with alpha; None: as the
      set declares, or else 3.
    background: RGB of 0 to 255 behind transparent pictures, where alpha is no
      channel.
    crop: "centre", or "random" for pictures that `Batches` cuts at another
      place in every epoch; these stay on disk.
    label: The feature of TFDS with the classes, "label" by default; "none"
      leaves them out.
    conditional: False never looks at labels.
    splits: By "train" and "test", the name that a split has in TFDS, or the
      folder of its pictures.
    test_share: Share of the training split that is held out and becomes "test",
      chosen by a hash of a picture's name or of a sample's number. None: sets
      have their own splits, but folders without one hold out a tenth.
    max_broken: Pictures of a folder that may be broken; they are left out.
    ram_gib: Pictures that need up to so many GiB as float32 are read into
      memory, more stay on disk.
    threads: Threads that read images into memory; 0 for one a core, at
      most 16.
    download: Whether to download and prepare a set of TFDS that is not there.

  Returns:
    A `Dataset` if the split is in memory, else a source that reads from disk.
    Images are in [-1, 1]. Latents have the deviation that `jaxflow encode
    --scale` set; their rows also have "std", from which batches are drawn.

  Raises:
    UsageError: A name, split, field or folder is wrong, or the set is not
      there.

  Example:
    >>> load("ring", "train").shape
    (2,)
  """
  given = {k: v for k, v in locals().items() if k not in ("name", "split")}
  for field, value, choices in (
    ("split", split, SPLITS),
    ("crop", crop, CROPS),
  ):
    if value not in choices:
      raise UsageError(
        f"data.{field}={value!r}: {did_you_mean(value, choices)}choose one of"
        f" {', '.join(choices)}"
      )
  for x in ("raw_dir", "data_dir", "dir"):
    given[x] = expanded(f"data.{x}", given[x])
  given["threads"] = threads or reading_threads()
  maker = _maker(name)
  taken = _taken(name, maker, given)
  if test_share is not None and splits.get("test"):
    raise UsageError(
      f"data.test_share={test_share}: data.split.test={splits['test']!r} is "
      "the test split; remove one of the two"
    )
  if test_share is None or "test_share" in taken:
    source = maker(split, **taken)
  else:
    source = held_out(maker("train", **taken), split, test_share)
  return source if conditional else without_labels(source)


def reads(name: str, what: str) -> bool:
  """Return whether a set reads a field of `load`.

  Example:
    >>> reads("folder", "size"), reads("digits", "size")
    (True, False)
  """
  maker = _maker(name)
  return what in inspect.signature(maker).parameters


def _taken(
  name: str, maker: Callable[..., Source], given: Mapping[str, Any]
) -> dict[str, Any]:
  """Return the fields that a set reads; raise UsageError for one in vain."""
  parameters = inspect.signature(maker).parameters
  defaults = inspect.signature(load).parameters
  if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
    return dict(given)
  for field, value in given.items():
    # Any set can be split, and be without labels.
    generic = field in parameters or field in (*_HARMLESS, "test_share")
    vain = [v for v in value.values() if v] if field == "splits" else value
    if not generic and vain and value != defaults[field].default:
      field = "split" if field == "splits" else field
      raise UsageError(
        f"data.{field}={value!r}: data.name={name!r} does not read it; remove"
        f" data.{field}"
      )
  return {k: v for k, v in given.items() if k in parameters}


def _maker(name: str) -> Callable[..., Source]:
  """Return what opens a set: ours, a plug-in's, or one of TFDS."""
  if name in DATASETS:
    return DATASETS[name]
  with named(name="data.name"):
    own = plugins.find("data", name)
  return _tfds(name) if own is None else _of_plugin(own, name)


def _of_plugin(make: Any, name: str) -> Callable[..., Source]:
  """Return a plug-in's function; errors of its own become one line."""
  start = f"data.name={name!r}"
  if not callable(make):
    raise UsageError(
      f"{start} is of type {type(make).__name__}: give a function of the split"
    )

  @functools.wraps(make)
  def load_set(split: str, **fields: Any) -> Source:
    try:
      made: Any = make(split, **fields)
    except UsageError:
      raise
    except Exception as error:
      raise UsageError(
        f"{start} raises {type(error).__name__} ({error}): correct the "
        "plug-in; --debug shows where"
      ) from error
    if not all(hasattr(made, x) for x in ("take", "shape", "num_classes")):
      raise UsageError(
        f"{start} returns {type(made).__name__}: return a jaxflow.data.Source, "
        "jaxflow.data.from_arrays makes one"
      )
    return made

  return load_set


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


def _tfds(name: str) -> Callable[..., Source]:
  """Return what opens a set of TFDS."""
  # TFDS takes most of a second to import: only the sets that need it pay.
  from jaxflow.data.sets import tfds_builders, tfds_images

  @functools.wraps(tfds_images.load)
  def load_set(split: str, **fields: Any) -> Source:
    source = tfds_images.load(name, split, **fields)
    if source is None:
      known = (*DATASETS, *plugins.registered("data"))
      hint = did_you_mean(name, (*known, *tfds_builders.names()))
      raise UsageError(
        f"data.name={name!r}: {hint}choose one of {', '.join(known)}, or an"
        " image set of TFDS, 'cifar10' for instance"
      )
    return source

  return load_set


def _ring(split: str) -> Dataset:
  mixture = toy.ring_mixture()
  data, component = mixture.sample(_RING_SAMPLES, seed=SPLITS.index(split))
  classes = len(mixture.weights)
  return from_arrays(
    data, component, num_classes=classes, name="ring", split=split
  )


def _digits(split: str, *, data_dir: str | None = None) -> Dataset:
  from jaxflow.data.sets import gray_images

  return gray_images.load_digits(split, data_dir)


def _idx(
  name: str,
  split: str,
  *,
  raw_dir: str | None = None,
  data_dir: str | None = None,
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


def _given(split: str, **fields: Any) -> Source:
  """Stand for data that the caller passes."""
  del fields
  raise UsageError(
    f"data.name='given': the run has data of yours: pass its {split} split "
    "again, data={'train': ..., 'test': ...}"
  )


def _latents(split: str, *, data_dir: str | None = None) -> Source:
  with named(folder="data.data_dir"):
    return Latents(_open_latents(data_dir), split, name="latents")


def _open_latents(data_dir: str | None) -> LatentFolder:
  if data_dir is None:
    raise UsageError(
      "folder=None: data.name='latents' needs the folder that `jaxflow encode` "
      "has made; set data.data_dir to it"
    )
  return LatentFolder.open(pathlib.Path(data_dir))


# They take a split, and those fields of `load` that they read, by name.
DATASETS: dict[str, Callable[..., Source]] = {
  "ring": _ring,
  "digits": _digits,
  "given": _given,
  "fashion_mnist": functools.partial(_idx, "fashion_mnist"),
  "mnist": functools.partial(_idx, "mnist"),
  "folder": picture_folder.load,
  "latents": _latents,
}
