"""Pictures in files or bytes, decoded to arrays of the channels asked for.

Whoever reads pictures calls `decode`, so that they are the same whatever other
packages are installed. The first frame of PNG, JPEG, WebP, GIF, TIFF and BMP is
read by Pillow:

| mode of Pillow | becomes |
|---|---|
| 1 | 0 and 255 |
| L, RGB | as they are |
| P, PA | the colours of the palette |
| CMYK, YCbCr, HSV | RGB, as Pillow converts them |
| I;16 | grey, its value / 257: 65535 is 255 |
| I | the same; a value over 65535 is an error |
| F | grey, 0 to 255 as Pillow has it; another value is an error |
| LA, RGBA, a transparent colour | over the background, or kept as a channel |

Pillow itself reads colour of 16 bits as 8 bits. Colour profiles are left alone.
"""

import io
import os
import struct
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from jaxflow.reading import DAMAGE

# Of Pillow's formats those that hold pictures and start no other program.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")
SUFFIXES = frozenset(
  {
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif"),
    *(".tif", ".tiff", ".bmp"),
  }
)
WHITE = (255, 255, 255)

Colour = tuple[int, int, int]

# Whatever Pillow raises for a damaged file.
_DAMAGE = (*DAMAGE, SyntaxError, struct.error, Image.DecompressionBombError)
# By the number of channels, with alpha or without.
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
CHANNELS = tuple(_MODES)
_WIDE = 257  # 65535 / 255.


class PictureError(ValueError):
  """A picture cannot be decoded; the message is the reason."""


class NoPictureError(PictureError):
  """A file is of another kind."""


def decode(
  file: str | os.PathLike[str] | bytes | BinaryIO,
  channels: int = 3,
  *,
  background: Colour = WHITE,
) -> np.ndarray:
  """Decode a picture; EXIF's orientation is applied.

  Args:
    file: A path, the bytes of a file, or an open one.
    channels: 1 for grey, 3 for RGB, 2 or 4 for these with alpha.
    background: RGB, 0 to 255, over which a transparent picture is laid if
      `channels` has no place for alpha.

  Returns:
    Pixels [H, W, channels] of 0 to 255: uint8, or float32 where the picture has
    more than 8 bits a value.

  Raises:
    PictureError: The picture is damaged, or has values out of range; it is a
      NoPictureError if the file is of another kind.

  Example:
    >>> file = io.BytesIO()
    >>> Image.new("LA", (3, 2), (0, 0)).save(file, "PNG")
    >>> decode(file.getvalue(), 1)[..., 0].tolist()
    [[255, 255, 255], [255, 255, 255]]
  """
  if channels not in _MODES:
    raise ValueError(f"channels={channels}: give 1, 2, 3 or 4")
  source = io.BytesIO(file) if isinstance(file, bytes) else file
  try:
    with Image.open(source, formats=FORMATS) as image:
      image.load()
      upright = ImageOps.exif_transpose(image)
    convert = _deep if upright.mode.startswith(("I", "F")) else _flat
    return convert(upright, channels, background)
  except PictureError:
    raise
  except _DAMAGE as error:
    if isinstance(error, Image.UnidentifiedImageError):
      raise NoPictureError(f"no file of {', '.join(FORMATS)}") from error
    reason = " ".join(str(error).split()) or type(error).__name__
    raise PictureError(reason) from error


def _flat(image: Image.Image, channels: int, background: Colour) -> np.ndarray:
  """Return the pixels of a picture of 8 bits a value."""
  # Every mode has a way to RGB; not every one has one to L.
  clear = image.has_transparency_data
  colours = image.convert("RGBA" if clear else "RGB")
  if clear and channels in (1, 3):
    behind = Image.new("RGBA", image.size, (*background, 255))
    colours = Image.alpha_composite(behind, colours).convert("RGB")
  if channels in (1, 2) and not clear:
    colours = image.convert("L") if image.mode in "1L" else colours
  pixels = np.asarray(colours.convert(_MODES[channels]))
  return pixels.reshape(*pixels.shape[:2], channels)


def _deep(image: Image.Image, channels: int, background: Colour) -> np.ndarray:
  """Return the pixels of a grey picture of more than 8 bits a value."""
  values = np.asarray(image).astype(np.float64)
  largest = 255 if image.mode == "F" else 255 * _WIDE
  if not (values.min() >= 0 and values.max() <= largest):  # NaN as well.
    raise PictureError(
      f"mode {image.mode} with values from {values.min():.6g} to "
      f"{values.max():.6g}, not in 0 to {largest}"
    )
  clear = image.info.get("transparency")
  shown = np.ones(values.shape) if clear is None else values != clear
  grey = (values * (255 / largest))[..., None]
  colours = np.repeat(grey, 1 if channels < 3 else 3, axis=-1)
  if channels in (2, 4):
    colours = np.concatenate([colours, 255 * shown[..., None]], axis=-1)
  else:
    behind = Image.new("RGB", (1, 1), background).convert(_MODES[channels])
    colours = np.where(shown[..., None], colours, np.asarray(behind).ravel())
  return colours.astype(np.float32)


def crop(
  pixels: np.ndarray, size: int, at: tuple[float, float] | None = None
) -> np.ndarray:
  """Scale a picture so that its shorter side fits, and cut a square of it.

  Each channel is scaled for itself, by Pillow: halved by 2x2 boxes while the
  shorter side has twice the size or more, then scaled by bicubic interpolation,
  as `center_crop_arr` of Dhariwal, Nichol 2021 (arXiv:2105.05233) does.

  Args:
    pixels: Values [H, W, C], uint8, or float32 of 0 to 255; any C.
    size: Side of the square.
    at: Where the square is, down and right, each from 0 to below 1: all places
      are equally likely if these numbers are uniform. None: in the middle.

  Returns:
    The square [size, size, C], of the type of `pixels`.

  Example:
    >>> crop(np.full((7, 9, 1), 5, np.uint8), 3)[..., 0].tolist()
    [[5, 5, 5], [5, 5, 5], [5, 5, 5]]
  """
  if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
    # Pillow scales the bands of RGB for themselves, and all at once.
    return np.asarray(_crop(Image.fromarray(pixels), size, at))
  bands = [np.ascontiguousarray(band) for band in np.moveaxis(pixels, 2, 0)]
  cut = [np.asarray(_crop(Image.fromarray(x), size, at)) for x in bands]
  # As Pillow clips bytes, where the filter overshoots.
  return np.clip(np.stack(cut, -1), 0, 255).astype(pixels.dtype)


def _crop(
  picture: Image.Image, size: int, at: tuple[float, float] | None
) -> Image.Image:
  while min(picture.size) >= 2 * size:
    width, height = picture.size
    picture = picture.resize(
      (width // 2, height // 2), resample=Image.Resampling.BOX
    )
  scale = size / min(picture.size)
  width, height = (round(side * scale) for side in picture.size)
  if (width, height) != picture.size:
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
  free = height - size, width - size
  if at is None:
    top, left = (x // 2 for x in free)
  else:
    top, left = (int(u * (x + 1)) for u, x in zip(at, free, strict=True))
  return picture.crop((left, top, left + size, top + size))
