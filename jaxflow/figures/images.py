"""Pictures of images side by side, with named rows and columns."""

import math
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from jaxflow.errors import UsageError
from jaxflow.figures.canvas import save_figure
from jaxflow.metrics.points import as_points

_INCHES = 8.0  # width of the images together
_PIXELS = 96  # maximal size of an image, to keep files small


def save_matrix(
  images: ArrayLike,
  path: str | os.PathLike[str],
  *,
  rows: Sequence[str] = (),
  columns: Sequence[str] = (),
  captions: Sequence[Sequence[str]] = (),
  title: str = "",
) -> None:
  """Write a matrix of images with names of rows and columns.

  Args:
    images: numbers in [-1, 1], black to white, clipped; [R, C, H, W, 1 or 3].
    path: PNG file to write or replace.
    rows: a name for each row, [R], or none.
    columns: a name for each column, [C], or none.
    captions: a line under each image, [R][C], or none.
    title: a line above the images.

  Raises:
    UsageError: `images` have another shape or are not finite, or the number of
      names is not that of rows or columns.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   save_matrix(np.zeros((2, 3, 8, 8, 1)), f"{folder}/a.png", title="a")
    ...   with Image.open(f"{folder}/a.png") as picture:
    ...     picture.width >= 600
    True
  """
  from matplotlib.figure import Figure
  from matplotlib.layout_engine import ConstrainedLayoutEngine

  array = _checked(images)
  for name, given, count in (
    ("rows", rows, array.shape[0]),
    ("columns", columns, array.shape[1]),
    ("captions", captions, array.shape[0]),
  ):
    if len(given) not in (0, count):
      raise UsageError(f"{name} has {len(given)} entries; give {count}")
  side = min(_INCHES / array.shape[1], 1.5)
  height = side * array.shape[2] / array.shape[3] + 0.2 * bool(captions)
  left = 0.09 * max(map(len, rows), default=0)
  figure = Figure(
    figsize=(
      max(left + side * array.shape[1], 0.085 * len(title), 6),
      height * array.shape[0] + 0.35 * bool(title) + 0.3 * bool(columns) + 0.1,
    ),
    layout=ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0),
  )
  grid = figure.subplots(*array.shape[:2], squeeze=False)
  for (row, column), axes in np.ndenumerate(grid):
    axes.imshow(_bytes(array[row, column]), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if captions:
      axes.set_xlabel(captions[row][column], fontsize=8, labelpad=1)
    if columns and row == 0:
      axes.set_title(columns[column], fontsize=9, pad=3)
    if rows and column == 0:
      axes.set_ylabel(
        rows[row], rotation=0, ha="right", va="center", fontsize=9
      )
  if title:
    figure.suptitle(title, fontsize=11)
  save_figure(figure, path)


def save_strip(
  pictures: Sequence[str | os.PathLike[str]],
  path: str | os.PathLike[str],
  *,
  names: Sequence[str],
  most: int = 6,
) -> None:
  """Write existing pictures side by side, for instance those of a training.

  Args:
    pictures: files in order.
    path: PNG file to write or replace.
    names: a name for each picture.
    most: maximal number of pictures; of more, evenly spaced ones are shown.

  Raises:
    UsageError: there is no picture, or the number of names differs.
  """
  from matplotlib.figure import Figure

  if not pictures or len(pictures) != len(names):
    raise UsageError(
      f"{len(pictures)} pictures and {len(names)} names; give as many, and one "
      "at least"
    )
  count = min(most, len(pictures))
  chosen = np.unique(
    np.linspace(0, len(pictures) - 1, count).round().astype(int)
  )
  columns = min(3, len(chosen))
  lines = math.ceil(len(chosen) / columns)
  figure = Figure(figsize=(3 * columns, 3.25 * lines), layout="constrained")
  grid = figure.subplots(lines, columns, squeeze=False).ravel()
  for axes in grid:
    axes.axis("off")
  for axes, index in zip(grid, chosen, strict=False):
    with Image.open(pictures[index]) as image:
      small = image.convert("RGB")
      small.thumbnail((300, 300))
      axes.imshow(np.asarray(small))
    axes.set_title(names[index], fontsize=10)
  save_figure(figure, path)


def _checked(images: ArrayLike) -> NDArray[np.float64]:
  array = np.asarray(images, np.float64)
  if array.ndim != 5 or array.shape[-1] not in (1, 3) or array.size == 0:
    raise UsageError(
      f"images has shape {array.shape}; give [R, C, H, W, 1] or [R, C, H, W, 3]"
    )
  as_points("images", array)
  return array


def _bytes(image: NDArray[np.float64]) -> NDArray[np.uint8]:
  """Turn [H, W, 1 or 3] in [-1, 1] into bytes [H', W', 3], of limited size."""
  bytes_ = np.rint((np.clip(image, -1, 1) + 1) * 127.5).astype(np.uint8)
  colour = np.broadcast_to(bytes_, (*bytes_.shape[:2], 3))
  small = Image.fromarray(np.ascontiguousarray(colour))
  small.thumbnail((_PIXELS, _PIXELS))
  return np.asarray(small)
