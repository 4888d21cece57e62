"""Figures as PNG files that are small enough for a page."""

import io
import os
from typing import TYPE_CHECKING

from jaxflow.files import replace_file

if TYPE_CHECKING:
  from matplotlib.figure import Figure

_DPIS = (100, 75, 60, 45)  # pixels an inch
_MOST_BYTES = 300_000


def save_figure(figure: "Figure", path: str | os.PathLike[str]) -> None:
  """Write a figure, the coarser the worse it compresses.

  Args:
    figure: the figure.
    path: where to write a PNG, of 300 kB at most unless 45 pixels an inch are
      too many; a file of that name is replaced in one step.

  Example:
    >>> import pathlib, tempfile
    >>> from matplotlib.figure import Figure
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   save_figure(Figure(), f"{folder}/a.png")
    ...   pathlib.Path(folder, "a.png").stat().st_size > 0
    True
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg

  canvas, data = FigureCanvasAgg(figure), b""
  for dpi in _DPIS:
    buffer = io.BytesIO()
    figure.set_dpi(dpi)
    canvas.print_png(buffer)
    data = buffer.getvalue()
    if len(data) <= _MOST_BYTES:
      break
  replace_file(path, lambda file: file.write_bytes(data))
