"""Pictures of images: grids, matrices with named rows and columns, strips."""

import contextlib
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from jaxflow.errors import UsageError
from jaxflow.figures.canvas import save_figure
from jaxflow.figures.planes import save_points
from jaxflow.files import replace_file
from jaxflow.metrics.points import as_points
from jaxflow.reading import reading

# Of a grid: minimal size of an image, white between cells, height of a line of
# text; in pixels.
_CELL, _GAP, _CAPTION = 32, 2, 14
# Of a matrix: width of the images together in inches; maximal size of an image
# in pixels, to keep files small.
_INCHES, _PIXELS = 8.0, 96


def drawable(shape: Sequence[int]) -> bool:
  """Return whether `save_samples` draws samples of a shape.

  Example:
    >>> drawable((8, 8, 3)), drawable((2,)), drawable((16, 3))
    (True, True, False)
  """
  return tuple(shape) == (2,) or (len(shape) == 3 and shape[2] in (1, 3))


def save_samples(
  samples: np.ndarray,
  path: pathlib.Path,
  *,
  labels: np.ndarray | None = None,
  reference: np.ndarray | None = None,
) -> None:
  """Write a grid of images [N, H, W, C], or a scatter of points [N, 2].

  `labels` [N] are captions of images, `reference` are real points behind.
  """
  if not drawable(samples.shape[1:]):
    raise UsageError(
      f"samples of shape {samples.shape[1:]} are neither images [H, W, 1 or 3] "
      "nor points in the plane"
    )
  if samples.ndim == 4:
    save_grid(samples, path, labels=labels)
  else:
    save_points(samples, path, reference)


@contextlib.contextmanager
def optional_picture(place: str, log: Callable[[str], None]) -> Iterator[None]:
  """Print a line where a picture fails: training goes on without it."""
  try:
    yield
  except Exception as error:  # Whatever it is, a picture is no reason to stop.
    log(f"{place}: samples are not drawn ({error})")


def save_grid(
  images: ArrayLike,
  path: str | os.PathLike[str],
  *,
  columns: int | None = None,
  labels: Sequence[object] | np.ndarray | None = None,
) -> None:
  """Write images [N, H, W, 1 or 3] in [-1, 1], row by row, as one PNG.

  They are enlarged by a whole factor to at least 32 x 32 pixels, clipped, and
  may have short captions above, [N]. By default the grid is square.
  """
  sheet = grid_of(images, columns=columns, labels=labels)
  replace_file(path, lambda file: sheet.save(file, format="PNG"))


def grid_of(
  images: ArrayLike,
  *,
  columns: int | None = None,
  labels: Sequence[object] | np.ndarray | None = None,
) -> Image.Image:
  """Return the picture that `save_grid` writes."""
  pixels = _bytes(images, "N")
  factor = math.ceil(_CELL / min(_CELL, *pixels.shape[1:3]))
  pixels = pixels.repeat(factor, axis=1).repeat(factor, axis=2)
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
  return sheet


def save_matrix(
  images: ArrayLike,
  path: str | os.PathLike[str],
  *,
  rows: Sequence[str] = (),
  columns: Sequence[str] = (),
  captions: Sequence[Sequence[str]] = (),
  title: str = "",
) -> None:
  """Write a matrix of images [R, C, H, W, 1 or 3] in [-1, 1], clipped, as PNG.

  Rows [R] and columns [C] may have names, and images captions below, `[R][C]`.
  """
  from matplotlib.figure import Figure
  from matplotlib.layout_engine import ConstrainedLayoutEngine

  array = _bytes(images, "R, C")
  num_rows, num_columns, high, wide = array.shape[:4]
  for name, given, count in (
    ("rows", rows, num_rows),
    ("columns", columns, num_columns),
    ("captions", captions, num_rows),
  ):
    if len(given) not in (0, count):
      raise UsageError(f"{name} has {len(given)} entries; give {count}")
  side = min(_INCHES / num_columns, 1.5)
  height = side * high / wide + 0.2 * bool(captions)
  left = 0.09 * max(map(len, rows), default=0)
  figure = Figure(
    figsize=(
      max(left + side * num_columns, 0.085 * len(title), 6),
      height * num_rows + 0.35 * bool(title) + 0.3 * bool(columns) + 0.1,
    ),
    layout=ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0),
  )
  grid = figure.subplots(num_rows, num_columns, squeeze=False)
  for (row, column), axes in np.ndenumerate(grid):
    small = Image.fromarray(array[row, column])
    small.thumbnail((_PIXELS, _PIXELS))
    axes.imshow(np.asarray(small), interpolation="nearest")
    axes.set(xticks=[], yticks=[])
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
  """Write named picture files side by side, for instance those of a training.

  Of more than `most` pictures, evenly spaced ones are shown.
  """
  from matplotlib.figure import Figure

  if not pictures or len(pictures) != len(names):
    raise UsageError(
      f"{len(pictures)} pictures and {len(names)} names; give as many, and one "
      "at least"
    )
  count = min(most, len(pictures))
  chosen = np.linspace(0, len(pictures) - 1, count).round().astype(int)
  columns = min(3, count)
  lines = math.ceil(count / columns)
  figure = Figure(figsize=(3 * columns, 3.25 * lines), layout="constrained")
  grid = figure.subplots(lines, columns, squeeze=False).ravel()
  for axes in grid:
    axes.axis("off")
  for axes, index in zip(grid, chosen, strict=False):
    file = pictures[index]
    with reading(file, "delete it"), Image.open(file) as image:
      small = image.convert("RGB")
      small.thumbnail((300, 300))
      axes.imshow(np.asarray(small))
    axes.set_title(names[index], fontsize=10)
  save_figure(figure, path)


def _bytes(images: ArrayLike, leading: str) -> NDArray[np.uint8]:
  """Turn images [..., H, W, 1 or 3] in [-1, 1] into bytes [..., H, W, 3].

  `leading` names the axes before H, "N" or "R, C".
  """
  array = np.asarray(images, np.float64)
  num_axes = len(leading.split(",")) + 3
  fits = array.ndim == num_axes and array.shape[-1] in (1, 3)
  if not fits or not array.size:
    raise UsageError(
      f"images has shape {array.shape}; give [{leading}, H, W, 1] or "
      f"[{leading}, H, W, 3]"
    )
  as_points("images", array)
  values = np.rint((np.clip(array, -1, 1) + 1) * 127.5).astype(np.uint8)
  return np.ascontiguousarray(np.broadcast_to(values, (*array.shape[:-1], 3)))
