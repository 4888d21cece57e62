"""Fashion-MNIST, and any other set published as MNIST's four IDX files."""

import dataclasses
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from jaxflow.data.dataset import Dataset, from_arrays
from jaxflow.data.sets import idx, tfds_arrays, tfds_builders

__all__ = ["load"]

_DESCRIPTION = """\
Gray 28x28 images in ten classes, from four IDX files: Fashion-MNIST (articles
of clothing), MNIST (handwritten digits), or a set of the same form. The
config is named by a hash of the files.
"""

_CITATION = """\
@article{xiao2017fashion,
  author = {Xiao, H. and Rasul, K. and Vollgraf, R.},
  title = {Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
           Learning Algorithms},
  journal = {arXiv:1708.07747},
  year = {2017}
}
"""


@dataclasses.dataclass(eq=False)
class IdxConfig(tfds.core.BuilderConfig):
  """Which files to prepare.

  Attributes:
    raw_dir: Folder of the files; the name is their fingerprint, so that two
      folders never share one prepared set.
  """

  raw_dir: str = ""


class IdxImages(tfds_arrays.ImageBuilder):
  """TFDS builder of a set in four IDX files; needs an `IdxConfig`."""

  SHAPE: ClassVar[tuple[int, int, int]] = (28, 28, 1)
  DESCRIPTION: ClassVar[str] = _DESCRIPTION
  HOMEPAGE: ClassVar[str] = "https://github.com/zalandoresearch/fashion-mnist"
  CITATION: ClassVar[str] = _CITATION

  def splits(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the images and labels of both splits."""
    config = self.builder_config
    assert isinstance(config, IdxConfig)
    return {k: idx.read_split(config.raw_dir, k) for k in ("train", "test")}


def load(name: str, split: str, raw_dir: str, data_dir: str | None) -> Dataset:
  """Read one split; values 0..255 become [-1, 1].

  Args:
    name: Name of the data set.
    split: "train" or "test".
    raw_dir: Folder with the four IDX files, plain or .gz.
    data_dir: Where prepared data sets are kept; None for TFDS' default.

  Returns:
    Images [N, 28, 28, 1] with labels 0..9.
  """
  config = IdxConfig(name=idx.fingerprint(raw_dir), raw_dir=raw_dir)
  images, labels = tfds_arrays.read_images(
    lambda: _make_builder(config, data_dir), split
  )
  data = images.astype(np.float32) / 127.5 - 1
  return from_arrays(data, labels, num_classes=10, name=name, split=split)


def _make_builder(config: IdxConfig, data_dir: str | None) -> IdxImages:
  # TFDS logs a warning for a config that its class does not list. Ours are
  # named after the user's files, so none can be listed.
  verbosity = logging.get_verbosity()
  logging.set_verbosity(min(verbosity, logging.ERROR))
  try:
    return IdxImages(
      config=config, data_dir=data_dir, file_format=tfds_builders.FILE_FORMAT
    )
  finally:
    logging.set_verbosity(verbosity)
