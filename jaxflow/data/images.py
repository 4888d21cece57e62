"""Images of one size in [-1, 1], and a source of them in records."""

import dataclasses
from concurrent import futures
from typing import Any

import numpy as np

from jaxflow.data.pictures import crop
from jaxflow.data.source import Dataset, from_arrays
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


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Images:
  """A source of images in records: values 0..255 become [-1, 1].

  Attributes:
    records: A sequence of records: "image" [H, W, C], uint8, and a "label" if
      any. Several threads read it.
    num_classes: Number of classes, 0 to leave labels out.
    where: Folder of the records, for messages.
  """

  records: Any
  name: str
  split: str
  shape: tuple[int, int, int]
  num_classes: int
  where: str

  def __len__(self) -> int:
    """Return the number of images."""
    return len(self.records)

  def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
    """Read images; raise RunError if a record cannot be read."""

    def fit(image):
      return image if image.shape == self.shape else crop(image, self.shape[0])

    try:
      records = [self.records[i] for i in index.tolist()]
      images = np.stack([fit(record["image"]) for record in records])
    except (OSError, RuntimeError, ValueError, IndexError) as error:
      raise RunError(
        f"data.name={self.name!r} ({self.split}): an image cannot be read"
        f" ({error}): {self.where} is damaged; prepare it again"
      ) from error
    rows = {"data": scaled(images)}
    if self.num_classes:
      label = np.asarray([record["label"] for record in records], np.int32)
      if label.min() < 0 or label.max() >= self.num_classes:
        raise UsageError(
          f"data.name={self.name!r} ({self.split}): a label is outside"
          f" 0..{self.num_classes - 1}; choose a set whose images have labels"
        )
      rows["cond"] = label
    return rows

  def read_all(self, threads: int) -> Dataset:
    """Read the whole source into memory, in so many threads."""
    data = np.empty((len(self), *self.shape), np.float32)
    label = np.empty(len(self), np.int32)

    def read(start):
      rows = slice(start, min(start + _CHUNK, len(self)))
      part = self.take(np.arange(rows.start, rows.stop))
      data[rows] = part["data"]
      label[rows] = part.get("cond", 0)

    with futures.ThreadPoolExecutor(threads) as executor:
      # Taken one by one, so that an error is raised.
      for _ in executor.map(read, range(0, len(self), _CHUNK)):
        pass
    return from_arrays(
      data,
      label if self.num_classes else None,
      num_classes=self.num_classes,
      name=self.name,
      split=self.split,
    )
