"""Images cut to one size."""

import numpy as np
from PIL import Image


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
