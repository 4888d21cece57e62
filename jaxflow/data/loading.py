"""The data sets that a config can name."""

import difflib
import os
from collections.abc import Callable

from jaxflow.data.dataset import Dataset, from_arrays
from jaxflow.data.folders import latents
from jaxflow.data.sets import toy
from jaxflow.data.source import Source
from jaxflow.errors import UsageError

SPLITS = ("train", "test")
RING_SAMPLES = 16_384
FASHION_MNIST_DIR = "/usr/share/datasets/fashion-mnist"

# (split, raw_dir, data_dir) -> Source
Loader = Callable[[str, str | None, str | None], Source]


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
    name: A key of `DATASETS`, or the name of an image set in TFDS.
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
    threads: Threads that read images into memory; 0 for one a core.
    download: Whether to download and prepare a set of TFDS that is not there.

  Returns:
    The split, a `Dataset` if it is in memory; images are in [-1, 1],
    latents have unit variance times a scale.

  Raises:
    UsageError: A name, split or folder is wrong, or the set is not there.

  Example:
    >>> load("ring", "train").shape
    (2,)
  """
  if split not in SPLITS:
    raise UsageError(_unknown("split", split, SPLITS))
  if name in DATASETS:
    if size is not None:
      raise UsageError(
        f"data.size={size}: the samples of data.name={name!r} have one size;"
        " remove data.size"
      )
    return DATASETS[name](split, raw_dir, data_dir)
  # TFDS takes most of a second to import: only the sets that need it pay.
  from jaxflow.data.sets import tfds_builders, tfds_images

  _reject_raw_dir(name, raw_dir)
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
    near = _near(name, (*DATASETS, *tfds_builders.names()))
    raise UsageError(
      f"data.name={name!r}: {near}choose one of {', '.join(DATASETS)}, or an"
      " image set of TFDS, 'cifar10' for instance"
    )
  return source


def reading_threads() -> int:
  """Return how many threads read data by default: one a core, at most 16."""
  return min(os.cpu_count() or 1, 16)


def latent_space(name: str, data_dir: str | None) -> latents.LatentSpace | None:
  """Return what the samples of a data set are latents of, or None.

  Args:
    name: A key of `DATASETS`.
    data_dir: As of `load`.

  Raises:
    UsageError: If the data set lacks what decodes its samples.

  Example:
    >>> latent_space("ring", None) is None
    True
  """
  return LATENT_SPACES[name](data_dir) if name in LATENT_SPACES else None


def known_mixture(name: str) -> toy.Mixture | None:
  """Return the true distribution of a data set where it is known.

  Args:
    name: A key of `DATASETS`.

  Example:
    >>> known_mixture("ring").means.shape, known_mixture("digits")
    ((8, 2), None)
  """
  return MIXTURES[name]() if name in MIXTURES else None


def _unknown(field: str, value: str, choices: tuple[str, ...]) -> str:
  hint = _near(value, choices)
  return f"data.{field}={value!r}: {hint}choose one of {', '.join(choices)}"


def _near(value: str, choices: tuple[str, ...]) -> str:
  near = difflib.get_close_matches(value, choices, n=1)
  return f"did you mean {near[0]!r}? " if near else ""


def _reject_raw_dir(name: str, raw_dir: str | None) -> None:
  if raw_dir is not None:
    raise UsageError(
      f"data.raw_dir={raw_dir!r}: data.name={name!r} reads no raw files;"
      " remove data.raw_dir"
    )


def _ring(split: str, raw_dir: str | None, data_dir: str | None) -> Dataset:
  del data_dir  # Sampled, never stored.
  _reject_raw_dir("ring", raw_dir)
  mixture = toy.ring_mixture()
  data, component = mixture.sample(RING_SAMPLES, seed=SPLITS.index(split))
  num_classes = len(mixture.weights)
  return from_arrays(
    data, component, num_classes=num_classes, name="ring", split=split
  )


def _digits(split: str, raw_dir: str | None, data_dir: str | None) -> Dataset:
  from jaxflow.data.sets import digits

  _reject_raw_dir("digits", raw_dir)
  return digits.load(split, data_dir)


def _fashion_mnist(
  split: str, raw_dir: str | None, data_dir: str | None
) -> Dataset:
  from jaxflow.data.sets import fashion_mnist

  raw_dir = FASHION_MNIST_DIR if raw_dir is None else raw_dir
  return fashion_mnist.load("fashion_mnist", split, raw_dir, data_dir)


def _mnist(split: str, raw_dir: str | None, data_dir: str | None) -> Dataset:
  from jaxflow.data.sets import fashion_mnist

  if raw_dir is None:
    raise UsageError(
      "data.raw_dir=None: data.name='mnist' needs the folder that holds the"
      " four MNIST IDX files; set data.raw_dir to it"
    )
  return fashion_mnist.load("mnist", split, raw_dir, data_dir)


def _latents(split: str, raw_dir: str | None, data_dir: str | None) -> Source:
  _reject_raw_dir("latents", raw_dir)
  folder = latents.open_latents(data_dir)
  return latents.Latents(folder, split, name="latents", field="data.data_dir")


def _latent_space(data_dir: str | None) -> latents.LatentSpace:
  folder = latents.open_latents(data_dir)
  return latents.LatentSpace.of(folder, field="data.data_dir")


DATASETS: dict[str, Loader] = {
  "ring": _ring,
  "digits": _digits,
  "fashion_mnist": _fashion_mnist,
  "mnist": _mnist,
  "latents": _latents,
}

# data_dir -> LatentSpace, of the data sets whose samples are no images.
LATENT_SPACES: dict[str, Callable[[str | None], latents.LatentSpace]] = {
  "latents": _latent_space,
}

MIXTURES = {"ring": toy.ring_mixture}
"""True distributions, by the data set's name."""
