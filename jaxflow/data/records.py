"""Images that are read from records one by one, cut to one size."""

import dataclasses
from collections.abc import Mapping
from concurrent import futures
from typing import Any, Protocol

import numpy as np

from jaxflow.data.dataset import Dataset, from_arrays
from jaxflow.data.images import crop, scaled
from jaxflow.errors import RunError, UsageError

# Images that a thread reads at once on the way into memory.
_CHUNK = 256


class Records(Protocol):
  """Records that can be read by their index, in threads."""

  def __len__(self) -> int:
    """Return their number."""
    ...

  def __getitem__(self, key: int, /) -> Mapping[str, Any]:
    """Return a record: "image" [H, W, C], uint8, and a "label" if any."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Images:
  """A source of images in records: values 0..255 become [-1, 1].

  Attributes:
    records: The records.
    name: What the data set is called in a config.
    split: "train" or "test".
    shape: Height, width, channels of one sample.
    num_classes: Number of classes, 0 to leave labels out.
    where: What holds the records, for messages.
  """

  records: Records
  name: str
  split: str
  shape: tuple[int, int, int]
  num_classes: int
  where: str

  def __len__(self) -> int:
    """Return the number of images."""
    return len(self.records)

  def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
    """Read images by their index, as `Source.take` describes.

    Raises:
      RunError: A record cannot be read.
    """
    try:
      records = [self.records[i] for i in index.tolist()]
      images = np.stack([self._image(record["image"]) for record in records])
    except (OSError, RuntimeError, ValueError, IndexError) as error:
      raise RunError(
        f"data.name={self.name!r} ({self.split}): an image cannot be read"
        f" ({error}): {self.where} is damaged; prepare it again"
      ) from error
    rows = {"data": scaled(images)}
    if self.num_classes:
      rows["cond"] = self._checked([record["label"] for record in records])
    return rows

  def read_all(self, threads: int) -> Dataset:
    """Read the whole source into memory.

    Args:
      threads: Threads that read at once.

    Raises:
      RunError: A record cannot be read.
    """
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

  def _checked(self, label: list[int]) -> np.ndarray:
    """Return labels as an array, all of them in range."""
    array = np.asarray(label, np.int32)
    if array.min() < 0 or array.max() >= self.num_classes:
      raise UsageError(
        f"data.name={self.name!r} ({self.split}): a label is outside"
        f" 0..{self.num_classes - 1}; choose a set whose images have labels"
      )
    return array

  def _image(self, image: np.ndarray) -> np.ndarray:
    if image.shape == self.shape:
      return image
    return crop(image, self.shape[0])
