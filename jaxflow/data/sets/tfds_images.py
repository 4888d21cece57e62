"""Image sets of TFDS under their names there, read without TensorFlow.

The bytes of pictures are decoded here, not by TFDS, which takes OpenCV where it
is installed and otherwise reads palettes as indices.
"""

import dataclasses
import functools
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxflow.data.images import Images, pixels_of
from jaxflow.data.pictures import CHANNELS, WHITE, Colour
from jaxflow.data.scaling import Scaling
from jaxflow.data.sets import tfds_builders
from jaxflow.data.source import (
  NO_LABEL,
  NoSplitError,
  Source,
  checked_vectors,
  rows_of_split,
  scales_of,
)
from jaxflow.errors import UsageError, did_you_mean

# Split for "test", where the images of TFDS' "test" have no labels.
_HELD_OUT = {"imagenet2012": "validation"}


def load(
  name: str,
  split: str,
  *,
  data_dir: str | None = None,
  size: int | None = None,
  channels: int | None = None,
  background: Colour = WHITE,
  crop: str = "centre",
  label: str | None = None,
  conditional: bool = True,
  conditions: Scaling | None = None,
  splits: Mapping[str, str | None] = {},
  test_share: float | None = None,
  ram_gib: float = 4.0,
  threads: int = 1,
  download: bool = False,
) -> Source | None:
  """Open one split of images in [-1, 1], or return None for unknown names.

  The arguments are those of `jaxflow.data.load`. Sets without a test split, or
  without labels there, give "validation" for it.
  """
  builder = tfds_builders.find(name, data_dir)
  if builder is None:
    return None
  features: Any = builder.info.features
  shape = _shape(features, name, size, channels)
  chosen = _label(features, name, label) if conditional else None
  if not tfds_builders.is_prepared(builder):
    tfds_builders.prepare(builder, download=download)
    # A builder looks at the disk only when it is made.
    builder = tfds_builders.find(name, data_dir)
    assert builder is not None
  held_out = test_share is not None
  records = _records(
    builder, _split(builder, name, "train" if held_out else split, splits)
  )
  rows = None
  if held_out:
    numbers = map(str, range(len(records)))
    rows = rows_of_split(numbers, split, test_share, f"data.name={name!r}")
  names, path, classes, vectors = (), (), 0, None
  if chosen is not None:
    path, feature = chosen
    classes = getattr(feature, "num_classes", None) or 0
    names = tuple(getattr(feature, "names", None) or ())
    # Names that are the numbers say nothing.
    names = () if names == tuple(map(str, range(len(names)))) else names
  if chosen is not None and not classes:
    where = f"data.name={name!r}"
    vectors = _vectors(records, path, f"{where} ({split})")
    if conditions is None:
      train = vectors
      if not held_out and split != "train":
        others = _records(builder, _split(builder, name, "train", splits))
        train = _vectors(others, path, f"{where} (train)")
      elif held_out:
        numbers = map(str, range(len(records)))
        train = train[rows_of_split(numbers, "train", test_share or 0, where)]
      conditions = scales_of(train, where)
    if rows is not None:
      vectors = vectors[rows]
    path = ()  # They are read already.
  images = Images(
    records=_Decoded(records, rows, shape[2], background, path),
    name=name,
    split=split,
    shape=shape,
    num_classes=classes,
    class_names=names,
    vectors=vectors,
    conditions=None if vectors is None else conditions,
    remedy=f"{builder.data_path} is damaged; prepare it again",
  )
  return images.fitting(ram_gib, threads, crop)


@dataclasses.dataclass(frozen=True)
class _Decoded:
  """Decodes the records of TFDS."""

  records: Any
  rows: np.ndarray | None  # Which of them; None for all.
  channels: int
  background: Colour
  label: tuple[str, ...]  # The feature, inside of others; () for none.

  def __len__(self) -> int:
    return len(self.records) if self.rows is None else len(self.rows)

  def __getitem__(self, number: int) -> dict[str, Any]:
    record = self.records[number if self.rows is None else self.rows[number]]
    image = pixels_of(record["image"], self.channels, self.background)
    found: dict[str, Any] = {"image": image}
    if self.label:
      for name in self.label:
        record = record[name]
      found["label"] = record
    return found


def _shape(
  features: Any, name: str, size: int | None, channels: int | None
) -> tuple[int, int, int]:
  """Return the shape of one image."""
  image = features["image"] if "image" in features else None
  shape = getattr(image, "shape", ())
  encoded = isinstance(image, tfds.features.Image)
  kinds = (np.uint8, np.uint16) if encoded else (np.uint8,)
  if image is None or len(shape) != 3 or image.np_dtype not in kinds:
    raise UsageError(
      f"data.name={name!r} has no feature 'image' of bytes [H, W, C]: choose"
      " an image set"
    )
  height, width, declared = shape
  if size is not None:
    height = width = size
  if height is None or width is None:
    raise UsageError(
      f"data.size=None: the images of data.name={name!r} vary in size; set"
      " data.size=64, for instance, to crop and scale them"
    )
  if not encoded and channels not in (None, declared):
    raise UsageError(
      f"data.channels={channels}: data.name={name!r} has arrays of {declared}"
      " channels, no pictures; remove data.channels"
    )
  found = channels or declared or 3
  if encoded and found not in CHANNELS:
    raise UsageError(
      f"data.channels=None: data.name={name!r} declares {declared}; give one of"
      f" {', '.join(map(str, CHANNELS))}"
    )
  return height, width, found


def _vectors(records: Any, path: tuple[str, ...], where: str) -> np.ndarray:
  """Return the labels of all records that are numbers, [N, K]."""
  found = (functools.reduce(operator.getitem, path, x) for x in records)
  label = np.array([np.ravel(x) for x in found])
  return checked_vectors(label, len(records), where)


def _label(
  features: Any, name: str, label: str | None
) -> tuple[tuple[str, ...], Any] | None:
  """Return the path to the feature with the labels, and the feature itself.

  It has classes, or numbers.
  """
  if label == NO_LABEL or (label is None and "label" not in features):
    return None
  path = (label or "label").split("/")
  feature = features
  for part in path:
    try:
      feature = feature[part]
    except (KeyError, TypeError, ValueError) as error:
      there = sorted(set(features) - {"image"})
      raise UsageError(
        f"data.label={label!r}: {did_you_mean(label or '', there)}data.name="
        f"{name!r} has {', '.join(there) or 'images alone'}; choose one, or"
        f" {NO_LABEL!r}"
      ) from error
  if isinstance(feature, tfds.features.ClassLabel):
    known = bool(feature.num_classes)
  else:
    shape = getattr(feature, "shape", None)
    # An image has numbers, and is no label.
    known = shape is not None and len(shape) < 2 and None not in shape
    known = known and np.dtype(feature.np_dtype).kind in "biuf"
  if not known:
    raise UsageError(
      f"data.label={label!r}: the feature {'/'.join(path)!r} of data.name="
      f"{name!r} is {type(feature).__name__}, which has no classes and no"
      f" numbers; choose another, or {NO_LABEL!r} to leave labels out"
    )
  return tuple(path), feature


def _split(
  builder: tfds.core.DatasetBuilder,
  name: str,
  split: str,
  splits: Mapping[str, str | None],
) -> str:
  """Return TFDS' name of a split."""
  there = list(builder.info.splits)
  given = splits.get(split)
  if given:
    if given not in there:
      raise UsageError(
        f"data.split.{split}={given!r}: {did_you_mean(given, there)}"
        f"data.name={name!r} has {', '.join(there)}"
      )
    return given
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
  """Return the records of a split, whose images are bytes."""
  features: Any = builder.info.features
  try:
    records = tfds_builders.data_source(builder, split)
    records.decoders = {
      name: tfds.decode.SkipDecoding()
      for name, feature in features.items()
      if isinstance(feature, tfds.features.Image)
    }
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
