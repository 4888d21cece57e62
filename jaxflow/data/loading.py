"""The data sets that a config can name."""

import difflib
from collections.abc import Callable

from jaxflow.data import toy
from jaxflow.data.dataset import Dataset, from_arrays
from jaxflow.errors import UsageError

SPLITS = ("train", "test")
RING_SAMPLES = 16_384
FASHION_MNIST_DIR = "/usr/share/datasets/fashion-mnist"

# (split, raw_dir, data_dir) -> Dataset
Loader = Callable[[str, str | None, str | None], Dataset]


def load(
  name: str,
  split: str,
  *,
  raw_dir: str | None = None,
  data_dir: str | None = None,
) -> Dataset:
  """Loads one split of a named data set into memory; downloads nothing.

  "ring" is sampled. The others are prepared once by TFDS and then read from
  disk: "digits" comes with scikit-learn, "fashion_mnist" and "mnist" from
  four IDX files.

  Args:
    name: A key of `DATASETS`.
    split: "train" or "test".
    raw_dir: Folder of the IDX files; "fashion_mnist" has the folder of the
      Debian package as its default, "mnist" has none.
    data_dir: Where prepared data sets are kept; by default where TFDS keeps
      them ($TFDS_DATA_DIR or ~/tensorflow_datasets).

  Returns:
    The split; images are in [-1, 1].

  Raises:
    UsageError: A name, split or folder is wrong.

  Example:
    >>> load("ring", "train").data.shape
    (16384, 2)
  """
  if name not in DATASETS:
    raise UsageError(_unknown("name", name, tuple(DATASETS)))
  if split not in SPLITS:
    raise UsageError(_unknown("split", split, SPLITS))
  return DATASETS[name](split, raw_dir, data_dir)


def _unknown(field: str, value: str, choices: tuple[str, ...]) -> str:
  near = difflib.get_close_matches(value, choices, n=1)
  hint = f"did you mean {near[0]!r}? " if near else ""
  return f"data.{field}={value!r}: {hint}choose one of {', '.join(choices)}"


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


# TFDS takes most of a second to import: only the sets that need it pay.
def _digits(split: str, raw_dir: str | None, data_dir: str | None) -> Dataset:
  from jaxflow.data import digits

  _reject_raw_dir("digits", raw_dir)
  return digits.load(split, data_dir)


def _fashion_mnist(
  split: str, raw_dir: str | None, data_dir: str | None
) -> Dataset:
  from jaxflow.data import fashion_mnist

  raw_dir = FASHION_MNIST_DIR if raw_dir is None else raw_dir
  return fashion_mnist.load("fashion_mnist", split, raw_dir, data_dir)


def _mnist(split: str, raw_dir: str | None, data_dir: str | None) -> Dataset:
  from jaxflow.data import fashion_mnist

  if raw_dir is None:
    raise UsageError(
      "data.raw_dir=None: data.name='mnist' needs the folder that holds the"
      " four MNIST IDX files; set data.raw_dir to it"
    )
  return fashion_mnist.load("mnist", split, raw_dir, data_dir)


DATASETS: dict[str, Loader] = {
  "ring": _ring,
  "digits": _digits,
  "fashion_mnist": _fashion_mnist,
  "mnist": _mnist,
}
