"""Figures of experiments, from rows and samples."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from jaxflow.figures.canvas import save_figure

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure


def panels(
  count: int, *, width: float = 4.2, height: float = 3.4, columns: int = 3
) -> tuple["Figure", list["Axes"]]:
  """Return a figure of so many panels.

  Args:
    count: How many.
    width: Of a panel, in inches.
    height: Likewise.
    columns: At most so many beside each other.
  """
  from matplotlib.figure import Figure

  columns = min(count, columns)
  lines = -(-count // columns)
  figure = Figure(figsize=(columns * width, lines * height))
  figure.set_layout_engine("constrained")
  grid = figure.subplots(lines, columns, squeeze=False)
  axes = list(grid.ravel())
  for unused in axes[count:]:
    unused.axis("off")
  return figure, axes[:count]


def logarithmic(axes: "Axes", base: int = 10) -> None:
  """Give panels logarithmic numbers from left to right, in plain digits.

  Args:
    axes: The panel.
    base: 10, with 1, 2 and 5 of every power; or 2, with every power.
  """
  from matplotlib.ticker import LogLocator

  axes.set_xscale("log")
  subs = (1, 2, 5) if base == 10 else (1,)
  axes.xaxis.set_major_locator(LogLocator(base, subs=subs))
  axes.xaxis.set_major_formatter("{x:g}")
  axes.minorticks_off()


def draw_lines(
  axes: "Axes",
  lines: Mapping[str, Iterable[tuple[float, ArrayLike]]],
  *,
  x: str,
  y: str,
  log: str = "xy",
  levels: Mapping[str, float] | None = None,
  ticks: Sequence[float] | None = None,
) -> None:
  """Draw lines of means over seeds, with bars of one standard deviation.

  Args:
    axes: Where to draw.
    lines: Points of each line: where, and one value a seed.
    x: What the horizontal axis shows, with its unit.
    y: What the vertical axis shows.
    log: Which axes are logarithmic: "", "x", "y" or "xy".
    levels: Horizontal lines by name, dashed or dotted.
    ticks: Places of ticks on the horizontal axis.
  """
  for number, (name, points) in enumerate(lines.items()):
    found = sorted((at, np.atleast_1d(values)) for at, values in points)
    axes.errorbar(
      [at for at, _ in found],
      [np.nanmean(values) for _, values in found],
      [np.nanstd(v, ddof=1) if len(v) > 1 else 0.0 for _, v in found],
      label=name,
      marker="osD^vP*X"[number % 8],
      color=f"C{number % 10}",
      linestyle="-" if number < 10 else ":",
      capsize=2,
      linewidth=1.3,
      markersize=4,
    )
  for number, (name, value) in enumerate((levels or {}).items()):
    style = ("--", ":", "-.")[number % 3]
    axes.axhline(value, color="0.5", linestyle=style, linewidth=1, label=name)
  if "x" in log:
    axes.set_xscale("log")
  if "y" in log:
    axes.set_yscale("log")
  if ticks is not None:
    axes.set_xticks(list(ticks), [f"{tick:g}" for tick in ticks])
    axes.xaxis.minorticks_off()
  axes.set_xlabel(x)
  axes.set_ylabel(y)
  axes.grid(color="0.92", which="both")
  axes.legend(fontsize=8)


def share_legend(
  figure: "Figure", axes: Sequence["Axes"], *, columns: int = 4
) -> None:
  """Put one legend below panels that draw the same lines.

  Args:
    figure: The figure.
    axes: Its panels, after `draw_lines`.
    columns: Of the legend.
  """
  for panel in axes:
    legend = panel.get_legend()
    if legend is not None:
      legend.remove()
  figure.legend(
    *axes[0].get_legend_handles_labels(),
    loc="outside lower center",
    ncols=columns,
    fontsize=8,
  )


def save_points(
  path: pathlib.Path, clouds: Mapping[str, np.ndarray], *, reach: float = 1.6
) -> None:
  """Write clouds of points in the plane, a panel each.

  Args:
    path: A .png file.
    clouds: Points [N, 2] by title.
    reach: Half the side of the square that is shown.
  """
  figure, axes = panels(len(clouds), width=2.5, height=2.6, columns=5)
  for panel, (title, points) in zip(axes, clouds.items(), strict=True):
    panel.scatter(*points.T, s=2, alpha=0.4, linewidths=0)
    panel.set_title(title, fontsize=9)
    _square(panel, reach)
  save_figure(figure, path)


def save_images(
  path: pathlib.Path, lines: Mapping[str, np.ndarray], *, scale: int = 3
) -> None:
  """Write images, one line a name, the name before it.

  Args:
    path: A .png file.
    lines: Images [N, H, W, C] in [-1, 1] by name.
    scale: Size of a pixel on the screen.
  """
  num = max(map(len, lines.values()))
  tall, wide = next(iter(lines.values())).shape[1:3]
  figure, axes = panels(
    len(lines),
    # Room for the longest name, of 8 points.
    width=0.4 + 0.085 * max(map(len, lines)) + num * wide * scale / 100,
    height=0.06 + tall * scale / 100,
    columns=1,
  )
  for panel, (name, images) in zip(axes, lines.items(), strict=True):
    pixels = np.clip((np.asarray(images) + 1) / 2, 0, 1)
    panel.imshow(
      np.concatenate(list(pixels), axis=1).squeeze(),
      cmap="gray",
      vmin=0,
      vmax=1,
    )
    panel.set_xticks([])
    panel.set_yticks([])
    panel.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
  save_figure(figure, path)


def _square(axes: Any, reach: float) -> None:
  axes.set_xlim(-reach, reach)
  axes.set_ylim(-reach, reach)
  axes.set_aspect("equal")
  axes.set_xticks([])
  axes.set_yticks([])
