"""Image sets of TFDS under their names there, read without TensorFlow."""

import math
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxflow.data.images import Images
from jaxflow.data.sets import tfds_builders
from jaxflow.data.source import NoSplitError, Source
from jaxflow.errors import UsageError

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
  """Open one split of images in [-1, 1], or return None for unknown names.

  The arguments are those of `jaxflow.data.load`, but `memory` is in bytes. Sets
  without a test split, or without labels there, give "validation" for it.
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
  classed = isinstance(label, tfds.features.ClassLabel)
  num_classes = label.num_classes if classed else None
  return (height, width, channels), num_classes or 0


def _split(builder: tfds.core.DatasetBuilder, name: str, split: str) -> str:
  """Return TFDS' name of a split."""
  there = list(builder.info.splits)
  choices = [split]
  if split == "test":
    choices = [_HELD_OUT.get(builder.name, "test"), "validation"]
  for choice in choices:
    if choice in there:
      return choice
  raise NoSplitError(
    f"data.name={name!r} has no {split} split, only {', '.join(there)}"
  )


def _records(builder: tfds.core.DatasetBuilder, split: str) -> Any:
  try:
    # TFDS warns at the first image that it has no OpenCV, which it needs not.
    with tfds_builders.quiet():
      records = tfds_builders.data_source(builder, split)
      records[0]
  except NotImplementedError as error:
    raise UsageError(
      f"data.data_dir={str(builder.data_dir_root)!r}: {builder.data_path} is"
      " in a format without random access; with another data.data_dir,"
      f" {tfds_builders.remedy(builder)}"
    ) from error
  except (OSError, RuntimeError) as error:
    raise UsageError(tfds_builders.damaged(builder)) from error
  return records
