"""Images of one size in [-1, 1], and a source of them in records."""

import dataclasses
import math
from concurrent import futures
from typing import Any

import numpy as np

from jaxflow.data.pictures import WHITE, Colour, crop, decode
from jaxflow.data.scaling import Scaling
from jaxflow.data.source import (
  Dataset,
  Source,
  from_arrays,
  known_labels,
  null_labels,
)
from jaxflow.errors import RunError, UsageError

# Images that a thread reads at once on the way into memory.
_CHUNK = 256


def scaled(images: np.ndarray) -> np.ndarray:
  """Return values 0..255 as float32 in [-1, 1]."""
  return images.astype(np.float32) / 127.5 - 1


def square(images: np.ndarray, size: int) -> np.ndarray:
  """Return images [n, H, W, 1 or 3] in [-1, 1] as a new [n, size, size, 3].

  Those of another size are cut and scaled by `crop`, in steps of 1/255.

  Example:
    >>> square(np.zeros((2, 4, 4, 1)), 4).shape
    (2, 4, 4, 3)
  """
  if images.shape[1:3] != (size, size):
    pixels = np.rint((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8)
    images = scaled(np.stack([crop(image, size) for image in pixels]))
  return np.repeat(images, 3 // images.shape[3], axis=3)


def pixels_of(
  value: Any, channels: int, background: Colour = WHITE
) -> np.ndarray:
  """Return pixels [H, W, channels] of 0 to 255 of a file's bytes, or of pixels.

  Raises:
    ValueError: The bytes are no picture, or pixels have other channels.
  """
  if isinstance(value, bytes):
    return decode(value, channels, background=background)
  pixels = np.asarray(value)
  if pixels.ndim != 3 or pixels.shape[2] != channels:
    raise ValueError(f"its shape is {pixels.shape}, not (H, W, {channels})")
  return pixels


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Images:
  """A source of images in records: values 0..255 become [-1, 1].

  Attributes:
    records: A sequence of records: "image" [H, W, C] of 0..255, uint8 or
      float32, and a "label", -1 for none, if there are classes. Several threads
      read it.
    num_classes: Number of classes, 0 to leave labels out.
    remedy: What to do with a record that cannot be read.
    class_names: Names of the classes, or ().
    vectors: Labels that are numbers, [N, K], NaN for none; or None.
    conditions: Their scales.
  """

  records: Any
  name: str
  split: str
  shape: tuple[int, int, int]
  num_classes: int
  remedy: str
  class_names: tuple[str, ...] = ()
  vectors: np.ndarray | None = None
  conditions: Scaling | None = None

  @property
  def label(self) -> np.ndarray | None:
    """Labels [N] of the records, or None where they would have to be read."""
    labels = getattr(self.records, "labels", None)
    return None if labels is None else null_labels(labels, self.num_classes)

  def __len__(self) -> int:
    """Return the number of images."""
    return len(self.records)

  def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
    """Read images; raise RunError if a record cannot be read."""
    return self.take_at(index, None)

  def take_at(
    self, index: np.ndarray, places: np.ndarray | None
  ) -> dict[str, np.ndarray]:
    """Read images cut at places [n, 2], as `crop` takes them; None: amidst."""
    height, width, _ = self.shape
    try:
      records = [self.records[i] for i in index.tolist()]
      images = [record["image"] for record in records]
      for number, image in enumerate(images):
        if image.shape[:2] != (height, width):
          at = None if places is None else tuple(places[number])
          images[number] = crop(image, height, at)
      data = scaled(np.stack(images))
    except (OSError, RuntimeError, ValueError, IndexError) as error:
      raise RunError(
        f"data.name={self.name!r} ({self.split}): an image cannot be read"
        f" ({error}): {self.remedy}"
      ) from error
    rows = {"data": data}
    if self.num_classes:
      label = np.asarray([record["label"] for record in records], np.int32)
      if label.min() < -1 or label.max() >= self.num_classes:
        raise UsageError(
          f"data.name={self.name!r} ({self.split}): a label is outside"
          f" 0..{self.num_classes - 1}; choose a set whose images have labels,"
          " or set data.conditional=False"
        )
      rows["cond"] = null_labels(label, self.num_classes)
    if self.vectors is not None and self.conditions is not None:
      rows["cond"] = self.conditions.normalise(self.vectors[index])
    return rows

  def read_all(self, threads: int) -> Dataset:
    """Read the whole source into memory, in so many threads."""
    data = np.empty((len(self), *self.shape), np.float32)
    label = np.empty(len(self), np.int32)
    if self.vectors is not None:
      label = np.empty(self.vectors.shape, np.float32)

    def read(start):
      rows = slice(start, min(start + _CHUNK, len(self)))
      part = self.take(np.arange(rows.start, rows.stop))
      data[rows] = part["data"]
      label[rows] = part.get("cond", 0)

    with futures.ThreadPoolExecutor(threads) as executor:
      # Taken one by one, so that an error is raised.
      for _ in executor.map(read, range(0, len(self), _CHUNK)):
        pass
    labelled = self.num_classes or self.vectors is not None
    known = known_labels(label, self.num_classes) if labelled else None
    found = from_arrays(
      data,
      known,
      num_classes=self.num_classes,
      name=self.name,
      split=self.split,
      class_names=self.class_names,
    )
    return dataclasses.replace(found, conditions=self.conditions)

  def fitting(self, ram_gib: float, threads: int, crop: str) -> Source:
    """Return all images in memory, read by threads, or itself.

    It is itself if they take more, in GiB, or are cut anew in every epoch.
    """
    size = len(self) * math.prod(self.shape) * 4
    kept = crop != "random" and size <= ram_gib * 2**30
    return self.read_all(threads) if kept else self
