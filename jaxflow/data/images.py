"""Images cut to one size, and a source of them in records."""

import dataclasses
from concurrent import futures
from typing import Any

import numpy as np
from PIL import Image

from jaxflow.data.dataset import Dataset, from_arrays
from jaxflow.errors import RunError, UsageError

__all__ = ["Images", "crop", "scaled", "square"]

# Images that a thread reads at once on the way into memory.
_CHUNK = 256


def crop(image: np.ndarray, size: int) -> np.ndarray:
  """Cut the middle square of an image and scale it.

  The image is halved by 2x2 boxes while its shorter side has twice the size or
  more, then scaled by bicubic interpolation, then cut.

  Args:
    image: Image [H, W, C], uint8, with one or three channels.
    size: Height and width of the result.

  Returns:
    The square [size, size, C], uint8.

  References:
    As Dhariwal, Nichol 2021, arXiv:2105.05233, whose released code names it
    `center_crop_arr`.

  Example:
    >>> crop(np.full((7, 9, 1), 5, np.uint8), 3)[..., 0].tolist()
    [[5, 5, 5], [5, 5, 5], [5, 5, 5]]
  """
  channels = image.shape[-1]
  picture = Image.fromarray(image[..., 0] if channels == 1 else image)
  while min(picture.size) >= 2 * size:
    width, height = picture.size
    picture = picture.resize(
      (width // 2, height // 2), resample=Image.Resampling.BOX
    )
  scale = size / min(picture.size)
  width, height = (round(side * scale) for side in picture.size)
  if (width, height) != picture.size:
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
  left, top = (width - size) // 2, (height - size) // 2
  picture = picture.crop((left, top, left + size, top + size))
  return np.asarray(picture).reshape(size, size, channels)


def scaled(images: np.ndarray) -> np.ndarray:
  """Return values 0..255 as float32 in [-1, 1].

  Example:
    >>> scaled(np.array([0, 255], np.uint8)).tolist()
    [-1.0, 1.0]
  """
  return images.astype(np.float32) / 127.5 - 1


def square(images: np.ndarray, size: int) -> np.ndarray:
  """Return images of one size in three channels.

  Args:
    images: Images [n, H, W, 1 or 3] in [-1, 1].
    size: Height and width of the result.

  Returns:
    A new array [n, size, size, 3]; images of another size are cut and scaled
    by `crop`, in steps of 1/255.

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
    name: Name of the data set in a config.
    split: "train" or "test".
    shape: Height, width, channels of one sample.
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
