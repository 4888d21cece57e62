"""Data sets on this machine, prepared once by TFDS and read into arrays."""

import abc
import contextlib
import io
import random
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from jaxflow.data.sets.tfds_builders import (
  FILE_FORMAT,
  damaged,
  data_source,
  is_prepared,
  quiet,
)
from jaxflow.errors import UsageError

# Deserialised records are Python objects: only so many exist at a time.
_READ_AT_ONCE = 4096


class ImageBuilder(tfds.core.GeneratorBasedBuilder):
  """TFDS builder of small uint8 images [H, W, C] in ten classes."""

  VERSION = tfds.core.Version("1.0.0")
  SHAPE: ClassVar[tuple[int, int, int]]
  DESCRIPTION: ClassVar[str]
  HOMEPAGE: ClassVar[str]
  CITATION: ClassVar[str]

  @abc.abstractmethod
  def splits(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return images [N, H, W, C], uint8, and labels [N] of every split."""

  def _info(self) -> tfds.core.DatasetInfo:
    features = tfds.features.FeaturesDict(
      {
        # One bytes field a pixel array: three times as fast to write as the
        # default, a list of 64-bit integers.
        "image": tfds.features.Tensor(
          shape=self.SHAPE,
          dtype=np.uint8,
          encoding=tfds.features.Encoding.BYTES,
        ),
        "label": tfds.features.ClassLabel(num_classes=10),
      }
    )
    return tfds.core.DatasetInfo(
      builder=self,
      features=features,
      supervised_keys=("image", "label"),
      # Keeps the order of the source; batches are shuffled when drawn.
      disable_shuffling=True,
      description=self.DESCRIPTION,
      homepage=self.HOMEPAGE,
      citation=self.CITATION,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    del dl_manager  # The arrays are already on this machine.
    splits = self.splits()
    return {k: self._generate_examples(*v) for k, v in splits.items()}

  def _generate_examples(
    self, images: np.ndarray, labels: np.ndarray
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
      yield index, {"image": image, "label": int(label)}


def read_images(
  builder_class: type[ImageBuilder],
  split: str,
  data_dir: str | None,
  **options: Any,
) -> tuple[np.ndarray, np.ndarray]:
  """Prepare a set at first use, and read one split of it.

  Any number of processes may call this at once: each prepares in a folder of
  its own, the first to finish moves it into place, and all read that one.

  Returns:
    Images [N, H, W, C], uint8, and labels [N], int32.

  Raises:
    UsageError: The folder of prepared sets cannot be used.
  """

  def make():
    # TFDS warns of a config that its class does not list. Ours are named after
    # the user's files, so none can be listed.
    with quiet():
      return builder_class(
        data_dir=data_dir, file_format=FILE_FORMAT, **options
      )

  builder = make()
  if not is_prepared(builder):
    _prepare(builder)
    # A builder looks at the disk only when it is made.
    builder = make()
  return _read(builder, split)


def _prepare(builder: tfds.core.DatasetBuilder) -> None:
  logging.info("Preparing %s, once", builder.data_path)
  # Its bars run over each other on a terminal, for a few seconds' work.
  tfds.disable_progress_bar()
  # TFDS draws the name of its scratch folder from the global generator:
  # processes that seeded it alike would write into one another's files.
  state = random.getstate()
  random.seed()
  try:
    # TFDS announces a download on standard output, although there is none.
    with contextlib.redirect_stdout(io.StringIO()):
      builder.download_and_prepare()
  except OSError as error:
    # The move fails if another process was first; then its folder is used.
    if not is_prepared(builder):
      raise UsageError(
        f"data.data_dir={str(builder.data_dir_root)!r}: {builder.data_path}"
        f" cannot be written ({error.strerror or error}); point data.data_dir"
        " to a folder with free space that you may write"
      ) from error
  finally:
    random.setstate(state)


def _read(
  builder: tfds.core.DatasetBuilder, split: str
) -> tuple[np.ndarray, np.ndarray]:
  images, labels = [], []
  try:
    source = data_source(builder, split)
    for start in range(0, len(source), _READ_AT_ONCE):
      stop = min(start + _READ_AT_ONCE, len(source))
      records = source.__getitems__(range(start, stop))
      images.append(np.stack([record["image"] for record in records]))
      labels.append(np.asarray([record["label"] for record in records]))
  except RuntimeError as error:  # From array_record: missing or corrupted.
    raise UsageError(damaged(builder)) from error
  return np.concatenate(images), np.concatenate(labels).astype(np.int32)
