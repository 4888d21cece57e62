"""Gray images on this machine: scikit-learn's digits, and sets in IDX files."""

import dataclasses
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from jaxflow.data.images import scaled
from jaxflow.data.sets import idx, tfds_arrays
from jaxflow.data.source import Dataset, from_arrays

_DIGITS = """\
1,797 gray images of handwritten digits, 8x8 pixels with values 0..16: the
test part of the UCI set, as scikit-learn ships it. After a stable sort by
class every fifth image is a test image, so both splits have the same share of
each class; the same people wrote both.
"""

_DIGITS_CITATION = """\
@misc{alpaydin1998optical,
  author = {Alpaydin, E. and Kaynak, C.},
  title = {Optical Recognition of Handwritten Digits},
  year = {1998},
  howpublished = {UCI Machine Learning Repository},
  doi = {10.24432/C50P49}
}
"""

_IDX = """\
Gray 28x28 images in ten classes, from four IDX files: Fashion-MNIST (articles
of clothing), MNIST (handwritten digits), or a set of the same form. The
config is named by a hash of the files.
"""

_IDX_CITATION = """\
@article{xiao2017fashion,
  author = {Xiao, H. and Rasul, K. and Vollgraf, R.},
  title = {Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
           Learning Algorithms},
  journal = {arXiv:1708.07747},
  year = {2017}
}
"""


class ScikitDigits(tfds_arrays.ImageBuilder):
  """TFDS builder of scikit-learn's digits: 1,437 train, 360 test images."""

  SHAPE: ClassVar[tuple[int, int, int]] = (8, 8, 1)
  DESCRIPTION: ClassVar[str] = _DIGITS
  HOMEPAGE: ClassVar[str] = "https://archive.ics.uci.edu/dataset/80"
  CITATION: ClassVar[str] = _DIGITS_CITATION

  def splits(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the images and labels of both splits."""
    from sklearn import datasets

    # Its type depends on whether pandas is installed.
    loaded: Any = datasets.load_digits(return_X_y=True)
    images, labels = loaded
    images = images.reshape(-1, 8, 8, 1).astype(np.uint8)
    by_class = np.argsort(labels, kind="stable")
    is_test = np.zeros(len(labels), bool)
    is_test[by_class[::5]] = True
    chosen = {"train": ~is_test, "test": is_test}
    return {k: (images[rows], labels[rows]) for k, rows in chosen.items()}


def load_digits(split: str, data_dir: str | None) -> Dataset:
  """Read images [N, 8, 8, 1] in [-1, 1], with labels 0..9, of one split."""
  images, labels = tfds_arrays.read_images(ScikitDigits, split, data_dir)
  data = images.astype(np.float32) / 8 - 1
  return from_arrays(data, labels, num_classes=10, name="digits", split=split)


@dataclasses.dataclass(eq=False)
class IdxConfig(tfds.core.BuilderConfig):
  """The folder of the files to prepare.

  The name is their fingerprint: other files never share a prepared set.
  """

  raw_dir: str = ""


class IdxImages(tfds_arrays.ImageBuilder):
  """TFDS builder of a set in four IDX files; needs an `IdxConfig`."""

  SHAPE: ClassVar[tuple[int, int, int]] = (28, 28, 1)
  DESCRIPTION: ClassVar[str] = _IDX
  HOMEPAGE: ClassVar[str] = "https://github.com/zalandoresearch/fashion-mnist"
  CITATION: ClassVar[str] = _IDX_CITATION

  def splits(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the images and labels of both splits."""
    config = self.builder_config
    assert isinstance(config, IdxConfig)
    return {k: idx.read_split(config.raw_dir, k) for k in ("train", "test")}


def load_idx(
  name: str, split: str, raw_dir: str, data_dir: str | None
) -> Dataset:
  """Read images [N, 28, 28, 1] in [-1, 1], with labels 0..9, of one split.

  `raw_dir` is the folder with the four IDX files, plain or .gz.
  """
  config = IdxConfig(name=idx.fingerprint(raw_dir), raw_dir=raw_dir)
  images, labels = tfds_arrays.read_images(
    IdxImages, split, data_dir, config=config
  )
  return from_arrays(
    scaled(images), labels, num_classes=10, name=name, split=split
  )
