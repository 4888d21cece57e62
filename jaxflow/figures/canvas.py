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
  """Write a PNG of at most 300 kB, at the finest resolution that allows it.

  It may be larger if it is so even at 45 pixels an inch.
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
