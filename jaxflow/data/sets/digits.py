"""The 1,797 handwritten 8x8 digits that come with scikit-learn."""

from typing import ClassVar

import numpy as np

from jaxflow.data.dataset import Dataset, from_arrays
from jaxflow.data.sets import tfds_arrays, tfds_builders

__all__ = ["ScikitDigits", "load"]

_DESCRIPTION = """\
1,797 gray images of handwritten digits, 8x8 pixels with values 0..16: the
test part of the UCI set, as scikit-learn ships it. After a stable sort by
class every fifth image is a test image, so both splits have the same share of
each class; the same people wrote both.
"""

_CITATION = """\
@misc{alpaydin1998optical,
  author = {Alpaydin, E. and Kaynak, C.},
  title = {Optical Recognition of Handwritten Digits},
  year = {1998},
  howpublished = {UCI Machine Learning Repository},
  doi = {10.24432/C50P49}
}
"""


class ScikitDigits(tfds_arrays.ImageBuilder):
  """TFDS builder of scikit-learn's digits: 1,437 train, 360 test images."""

  SHAPE: ClassVar[tuple[int, int, int]] = (8, 8, 1)
  DESCRIPTION: ClassVar[str] = _DESCRIPTION
  HOMEPAGE: ClassVar[str] = "https://archive.ics.uci.edu/dataset/80"
  CITATION: ClassVar[str] = _CITATION

  def splits(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the images and labels of both splits."""
    from sklearn import datasets

    images, labels = datasets.load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.uint8)
    by_class = np.argsort(labels, kind="stable")
    is_test = np.zeros(len(labels), bool)
    is_test[by_class[::5]] = True
    chosen = {"train": ~is_test, "test": is_test}
    return {k: (images[rows], labels[rows]) for k, rows in chosen.items()}


def load(split: str, data_dir: str | None) -> Dataset:
  """Read one split; values 0..16 become [-1, 1].

  Args:
    split: "train" or "test".
    data_dir: Where prepared data sets are kept; None for TFDS' default.

  Returns:
    Images [N, 8, 8, 1] with labels 0..9.
  """
  images, labels = tfds_arrays.read_images(
    lambda: ScikitDigits(
      data_dir=data_dir, file_format=tfds_builders.FILE_FORMAT
    ),
    split,
  )
  data = images.astype(np.float32) / 8 - 1
  return from_arrays(data, labels, num_classes=10, name="digits", split=split)
