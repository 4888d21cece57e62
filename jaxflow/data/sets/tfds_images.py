"""Image sets of TFDS under their names there, read without TensorFlow."""

import math
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from jaxflow.data.images import Images
from jaxflow.data.sets import tfds_builders
from jaxflow.data.source import Source
from jaxflow.errors import UsageError

__all__ = ["load"]

# Split for "test", where the images of TFDS' "test" have no labels.
_HELD_OUT = {"imagenet2012": "validation"}


def load(
  name: str,
  split: str,
  *,
  data_dir: str | None,
  size: int | None,
  memory: int,
  threads: int,
  download: bool,
) -> Source | None:
  """Open one split; values 0..255 become [-1, 1].

  Args:
    name: Name of the set in TFDS, also with a config and a version.
    split: "train" or "test"; sets without a test split, or without labels
      there, give "validation" for it.
    data_dir: Where prepared sets are kept; None for TFDS' default.
    size: Height and width to which images are cropped and scaled; None keeps
      those of sets whose images are of one size.
    memory: Bytes; a set is read into memory if it needs no more.
    threads: Threads that read it into memory.
    download: Whether to download and prepare a set that is not there.

  Returns:
    The split, in memory if it fits; None if TFDS knows no such set.

  Raises:
    UsageError: The set has no images, is not prepared, or cannot be.
  """
  builder = tfds_builders.find(name, data_dir)
  if builder is None:
    return None
  shape, num_classes = _shape_and_classes(builder, name, size)
  if not tfds_builders.is_prepared(builder):
    tfds_builders.prepare(builder, download=download)
    # A builder looks at the disk only when it is made.
    builder = tfds_builders.find(name, data_dir)
    assert builder is not None
  images = Images(
    records=_records(builder, _split(builder, name, split)),
    name=name,
    split=split,
    shape=shape,
    num_classes=num_classes,
    where=str(builder.data_path),
  )
  if len(images) * math.prod(shape) * 4 > memory:
    return images
  return images.read_all(threads)


def _shape_and_classes(
  builder: tfds.core.DatasetBuilder, name: str, size: int | None
) -> tuple[tuple[int, int, int], int]:
  """Return the shape of one image, and the number of classes."""
  features: Any = builder.info.features
  image = features["image"] if "image" in features else None
  shape = getattr(image, "shape", ())
  if image is None or len(shape) != 3 or image.np_dtype != np.uint8:
    raise UsageError(
      f"data.name={name!r} has no feature 'image' of bytes [H, W, C]: choose"
      " an image set"
    )
  height, width, channels = shape
  if size is not None:
    height = width = size
  if height is None or width is None:
    raise UsageError(
      f"data.size=None: the images of data.name={name!r} vary in size; set"
      " data.size=64, for instance, to crop and scale them"
    )
  label = features["label"] if "label" in features else None
  if not isinstance(label, tfds.features.ClassLabel):
    return (height, width, channels), 0
  return (height, width, channels), label.num_classes or 0


def _split(builder: tfds.core.DatasetBuilder, name: str, split: str) -> str:
  """Return TFDS' name of a split."""
  there = list(builder.info.splits)
  choices = [split]
  if split == "test":
    choices = [_HELD_OUT.get(builder.name, "test"), "validation"]
  for choice in choices:
    if choice in there:
      return choice
  raise UsageError(
    f"data.split={split!r}: data.name={name!r} has only {', '.join(there)}"
  )


def _records(builder: tfds.core.DatasetBuilder, split: str) -> Any:
  # TFDS' decorators hide the signature from type checkers.
  as_data_source: Any = builder.as_data_source
  # TFDS warns at the first image that it has no OpenCV, which it needs not.
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    records = as_data_source(split)
    records[0]
  except NotImplementedError as error:
    raise UsageError(
      f"data.data_dir={str(builder.data_dir_root)!r}: {builder.data_path} is"
      " in a format without random access; with another data.data_dir,"
      f" {tfds_builders.remedy(builder)}"
    ) from error
  except (OSError, RuntimeError) as error:
    raise UsageError(tfds_builders.damaged(builder)) from error
  finally:
    logging.set_verbosity(verbosity)
  return records
