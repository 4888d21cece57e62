"""Training curves: read logs and draw them."""

import csv
import math
import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxflow.errors import UsageError
from jaxflow.figures.canvas import save_figure

# Title of each panel, and the prefix of its columns.
_PANELS = {
  "loss": ("loss",),
  "raw losses, unweighted": ("raw",),
  "gradient norm": ("gradient_norm",),
  "samples per second": ("samples_per_second",),
}
# Columns of evaluations that are costs, not metrics.
_TIMES = ("seconds", "share")


def read_log(path: pathlib.Path) -> dict[str, NDArray[np.float64]]:
  """Read a `metrics.csv` or an `evaluations.csv`.

  Args:
    path: the file.

  Returns:
    Its columns by name, [rows] each; NaN for a missing value.

  Raises:
    UsageError: the file is missing, or a value is not a number.
  """
  try:
    with open(path, newline="") as file:
      rows = list(csv.DictReader(file))
    names = list(rows[0]) if rows else []
    return {
      name: np.array([float(row[name] or math.nan) for row in rows])
      for name in names
    }
  except (OSError, ValueError, TypeError) as error:
    raise UsageError(f"{path} cannot be read ({error})") from error


def save_curves(
  log: Mapping[str, NDArray[np.float64]],
  path: str | os.PathLike[str],
  *,
  evaluations: Mapping[str, NDArray[np.float64]] | None = None,
) -> None:
  """Draw loss, raw losses, gradient norm, speed and evaluations over steps.

  Args:
    log: columns by name, "step" among them.
    path: PNG file to write or replace.
    evaluations: columns by name, "step" among them; "AVERAGE/nfeN/METRIC" is a
      line in the panel of its metric.

  Raises:
    UsageError: the log has no rows, or no column to draw.

  Example:
    >>> import tempfile
    >>> log = {"step": np.arange(3.0), "loss": np.ones(3)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   save_curves(log, f"{folder}/a.png")
    ...   pathlib.Path(folder, "a.png").stat().st_size > 0
    True
  """
  from matplotlib.figure import Figure

  panels = _panels(log)
  if not panels or not len(log.get("step", ())):
    raise UsageError("the log has no row with a loss; train for longer")
  panels += _evaluation_panels(evaluations or {})
  columns = min(2, len(panels))
  lines = math.ceil(len(panels) / columns)
  figure = Figure(figsize=(4.6 * columns, 2.7 * lines), layout="constrained")
  grid = figure.subplots(lines, columns, squeeze=False).ravel()
  for axes in grid[len(panels) :]:
    axes.axis("off")
  for axes, panel in zip(grid, panels, strict=False):
    for label, values in panel.lines.items():
      there = np.isfinite(values)
      axes.plot(panel.step[there], values[there], marker=".", label=label)
    axes.set_xlabel("step")
    axes.set_ylabel(panel.title)
    axes.grid(color="0.92")
    if len(panel.lines) > 1 or panel.legend:
      axes.legend(fontsize=8)
  save_figure(figure, path)


class _Panel(NamedTuple):
  """Lines over the same steps; `legend` asks for one even for a single line."""

  title: str
  step: NDArray[np.float64]
  lines: dict[str, NDArray[np.float64]]
  legend: bool = False


def _panels(log: Mapping[str, NDArray[np.float64]]) -> list[_Panel]:
  """Return the panels of a training log."""
  panels = []
  for title, starts in _PANELS.items():
    lines = {k: v for k, v in log.items() if k.startswith(starts)}
    if lines:
      panels.append(_Panel(title, log.get("step", np.zeros(0)), lines))
  return panels


def _evaluation_panels(
  log: Mapping[str, NDArray[np.float64]],
) -> list[_Panel]:
  """Return a panel for each metric, with a line for each way to sample."""
  panels: dict[str, _Panel] = {}
  for name, values in log.items():
    if name not in ("step", *_TIMES):
      way, _, metric = name.rpartition("/")
      panel = panels.setdefault(metric, _Panel(metric, log["step"], {}, True))
      panel.lines[way] = values
  return list(panels.values())
