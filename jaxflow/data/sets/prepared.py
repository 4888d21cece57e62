"""Prepares a TFDS builder once, on local data, and reads it into arrays."""

import contextlib
import io
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from jaxflow.errors import UsageError

# TFDS' default format, TFRecord, cannot be read without TensorFlow.
FILE_FORMAT = "array_record"

# Deserialised records are Python objects: only so many exist at a time.
_READ_AT_ONCE = 4096


def image_info(
  builder: tfds.core.DatasetBuilder,
  shape: tuple[int, int, int],
  *,
  description: str,
  homepage: str,
  citation: str,
) -> tfds.core.DatasetInfo:
  """Describe a set of small uint8 images in ten classes.

  Args:
    builder: The builder described.
    shape: Height, width, channels.
    description: What the set holds, and how it was split.
    homepage: Address of its publisher.
    citation: BibTeX entry.

  Returns:
    The information for `_info`.
  """
  features = tfds.features.FeaturesDict(
    {
      # One bytes field a pixel array: three times as fast to write as the
      # default, a list of 64-bit integers.
      "image": tfds.features.Tensor(
        shape=shape, dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
      ),
      "label": tfds.features.ClassLabel(num_classes=10),
    }
  )
  return tfds.core.DatasetInfo(
    builder=builder,
    features=features,
    supervised_keys=("image", "label"),
    # Keeps the order of the source; batches are shuffled when they are drawn.
    disable_shuffling=True,
    description=description,
    homepage=homepage,
    citation=citation,
  )


def read_images(
  make_builder: Callable[[], tfds.core.DatasetBuilder], split: str
) -> tuple[np.ndarray, np.ndarray]:
  """Prepare the set if it is not yet, and read one split of it.

  Any number of processes may call this at once: each prepares in a folder of
  its own, the first to finish moves it into place, and all read that one.

  Args:
    make_builder: Makes a builder whose features are those of `image_info`.
      Called anew after preparing, because a builder reads what is on disk
      only when it is made.
    split: Name of the split.

  Returns:
    Images [N, H, W, C], uint8, and labels [N], int32.

  Raises:
    UsageError: The folder of prepared sets cannot be used.
  """
  builder = make_builder()
  if not is_prepared(builder):
    _prepare(builder)
    builder = make_builder()
  return _read(builder, split)


def is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
  """Return whether a set is on disk; raise UsageError if half of it is."""
  if not builder.data_path.exists():
    return False
  # TFDS moves only finished folders here: one without its description was
  # damaged later.
  if not (builder.data_path / "dataset_info.json").exists():
    raise UsageError(damaged(builder))
  return True


def damaged(builder: tfds.core.DatasetBuilder) -> str:
  """Return what to say of a prepared set that cannot be read."""
  return (
    f"data.data_dir={str(builder.data_dir_root)!r}: {builder.data_path} is"
    " damaged; delete that folder to have it prepared again"
  )


def _prepare(builder: tfds.core.DatasetBuilder) -> None:
  logging.info("Preparing %s, once", builder.data_path)
  # Its bars run over each other on a terminal, for a few seconds' work.
  tfds.disable_progress_bar()
  try:
    # TFDS announces a download on standard output, although there is none.
    with _fresh_random_state(), contextlib.redirect_stdout(io.StringIO()):
      builder.download_and_prepare()
  except OSError as error:
    # The move fails if another process was first; then its folder is used.
    if not is_prepared(builder):
      raise UsageError(
        f"data.data_dir={str(builder.data_dir_root)!r}: {builder.data_path}"
        f" cannot be written ({error.strerror or error}); point data.data_dir"
        " to a folder with free space that you may write"
      ) from error


@contextlib.contextmanager
def _fresh_random_state():
  # TFDS draws the name of its scratch folder from the global generator:
  # processes that seeded it alike would write into one another's files.
  state = random.getstate()
  random.seed()
  try:
    yield
  finally:
    random.setstate(state)


def _read(
  builder: tfds.core.DatasetBuilder, split: str
) -> tuple[np.ndarray, np.ndarray]:
  # TFDS' decorators hide the signature from type checkers.
  as_data_source: Any = builder.as_data_source
  images, labels = [], []
  try:
    source = as_data_source(split)
    for start in range(0, len(source), _READ_AT_ONCE):
      stop = min(start + _READ_AT_ONCE, len(source))
      records = source.__getitems__(range(start, stop))
      images.append(np.stack([record["image"] for record in records]))
      labels.append(np.asarray([record["label"] for record in records]))
  except RuntimeError as error:  # From array_record: missing or corrupted.
    raise UsageError(damaged(builder)) from error
  return np.concatenate(images), np.concatenate(labels).astype(np.int32)
