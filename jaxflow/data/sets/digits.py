"""The 1,797 handwritten 8x8 digits that come with scikit-learn."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxflow.data.dataset import Dataset, from_arrays
from jaxflow.data.sets import prepared

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


class ScikitDigits(tfds.core.GeneratorBasedBuilder):
  """TFDS builder of scikit-learn's digits: 1,437 train, 360 test images."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self) -> tfds.core.DatasetInfo:
    return prepared.image_info(
      self,
      (8, 8, 1),
      description=_DESCRIPTION,
      homepage="https://archive.ics.uci.edu/dataset/80",
      citation=_CITATION,
    )

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Any]:
    del dl_manager  # The images lie in scikit-learn's package.
    from sklearn import datasets

    images, labels = datasets.load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.uint8)
    by_class = np.argsort(labels, kind="stable")
    is_test = np.zeros(len(labels), bool)
    is_test[by_class[::5]] = True
    return {
      "train": self._generate_examples(images, labels, ~is_test),
      "test": self._generate_examples(images, labels, is_test),
    }

  def _generate_examples(
    self, images: np.ndarray, labels: np.ndarray, chosen: np.ndarray
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for index in np.flatnonzero(chosen).tolist():
      yield index, {"image": images[index], "label": int(labels[index])}


def load(split: str, data_dir: str | None) -> Dataset:
  """Read one split; values 0..16 become [-1, 1].

  Args:
    split: "train" or "test".
    data_dir: Where prepared data sets are kept; None for TFDS' default.

  Returns:
    Images [N, 8, 8, 1] with labels 0..9.
  """
  images, labels = prepared.read_images(
    lambda: ScikitDigits(data_dir=data_dir, file_format=prepared.FILE_FORMAT),
    split,
  )
  data = images.astype(np.float32) / 8 - 1
  return from_arrays(data, labels, num_classes=10, name="digits", split=split)
