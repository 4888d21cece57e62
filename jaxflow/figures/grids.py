"""Grids of sample images as PNG files."""

import math
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from jaxflow.errors import UsageError
from jaxflow.figures.planes import save_points
from jaxflow.files import replace_file
from jaxflow.metrics.points import as_points

_CELL = 32  # minimal size of an image in pixels
_GAP = 2  # white pixels around each cell
_CAPTION = 14  # height of a line of text, in pixels


def save_grid(
  images: ArrayLike,
  path: str | os.PathLike[str],
  *,
  columns: int | None = None,
  labels: Sequence[object] | None = None,
) -> None:
  """Write images as one PNG, row by row from the upper left.

  Small images are enlarged by a whole factor to at least 32 x 32 pixels.

  Args:
    images: numbers in [-1, 1], black to white, clipped; [N, H, W, 1 or 3].
    path: file to write or replace; missing folders are created.
    columns: images in a row; default: the root of N, rounded up.
    labels: a short caption above each image, [N].

  Raises:
    UsageError: `images` have another shape or are not finite, or `columns` or
      `labels` do not fit.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   save_grid(np.zeros((3, 8, 8, 1)), f"{folder}/grid.png")
    ...   with Image.open(f"{folder}/grid.png") as sheet:
    ...     sheet.size
    (70, 70)
  """
  pixels = _pixels(images)
  num, height, width = pixels.shape[:3]
  if columns is None:
    columns = math.ceil(math.sqrt(num))
  if columns < 1:
    raise UsageError(f"columns is {columns}; give at least 1")
  if labels is not None and len(labels) != num:
    raise UsageError(f"labels has {len(labels)} entries; give {num}")
  caption = 0 if labels is None else _CAPTION
  step_x, step_y = width + _GAP, height + _GAP + caption
  size = columns * step_x + _GAP, math.ceil(num / columns) * step_y + _GAP
  sheet = Image.new("RGB", size, "white")
  pen = ImageDraw.Draw(sheet)
  for index, image in enumerate(pixels):
    row, column = divmod(index, columns)
    left, top = _GAP + column * step_x, _GAP + row * step_y
    sheet.paste(Image.fromarray(image), (left, top + caption))
    if labels is not None:
      pen.text((left, top), str(labels[index]), fill="black")
  replace_file(path, lambda file: sheet.save(file, format="PNG"))


def _pixels(images: ArrayLike) -> NDArray[np.uint8]:
  """Turn [N, H, W, 1 or 3] in [-1, 1] into enlarged bytes [N, H', W', 3]."""
  array = np.asarray(images, np.float64)
  if array.ndim != 4 or array.shape[-1] not in (1, 3) or array.size == 0:
    raise UsageError(
      f"images has shape {array.shape}; give [N, H, W, 1] or [N, H, W, 3]"
    )
  as_points("images", array)
  grey = np.rint((np.clip(array, -1, 1) + 1) * 127.5).astype(np.uint8)
  factor = math.ceil(_CELL / min(_CELL, *array.shape[1:3]))
  large = grey.repeat(factor, axis=1).repeat(factor, axis=2)
  return np.ascontiguousarray(np.broadcast_to(large, (*large.shape[:3], 3)))


def _plane(name: str, points: ArrayLike) -> NDArray[np.float64]:
  """Return the coordinates [2, N] of points [N, 2]."""
  if np.ndim(points) != 2 or np.shape(points)[1] != 2:
    raise UsageError(f"{name} has shape {np.shape(points)}; give [N, 2]")
  return as_points(name, points).T


def save_samples(
  samples: np.ndarray,
  path: pathlib.Path,
  *,
  labels: np.ndarray | None = None,
  reference: np.ndarray | None = None,
) -> None:
  """Write samples as a picture: a grid of images or a scatter of points.

  Args:
    samples: Images `[N, H, W, C]` or points `[N, 2]`.
    path: A .png file; its folder is made.
    labels: Captions of images `[N]`.
    reference: Real points to draw behind.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  if samples.ndim == 4:
    captions = None if labels is None else [str(x) for x in labels]
    save_grid(samples, path, labels=captions)
  else:
    save_points(samples, path, reference)
