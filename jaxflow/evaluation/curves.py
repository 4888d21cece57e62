"""Curves of a training: its log, read and drawn."""

import csv
import math
import os
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from jaxflow.errors import UsageError
from jaxflow.evaluation.canvas import save_figure

# Columns that belong in one panel, by how their names begin.
_PANELS = {
  "loss": ("loss",),
  "raw losses, unweighted": ("raw",),
  "gradient norm": ("gradient_norm",),
  "samples per second": ("samples_per_second",),
}
_EVALUATION = "eval/"


def read_log(path: pathlib.Path) -> dict[str, NDArray[np.float64]]:
  """Read a `metrics.csv`.

  Args:
    path: the file.

  Returns:
    Its columns by name, [rows] each; NaN where a row has no value.

  Raises:
    UsageError: it is not there, or a value is no number.
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
  log: Mapping[str, NDArray[np.float64]], path: str | os.PathLike[str]
) -> None:
  """Write loss, raw losses, gradient norm, speed and evaluations over steps.

  Args:
    log: columns by name, "step" among them; each name that begins with "eval/"
      has a panel of its own.
    path: where to write a PNG; a file of that name is replaced in one step.

  Raises:
    UsageError: there are no rows, or no column that is drawn.

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
  columns = min(2, len(panels))
  lines = math.ceil(len(panels) / columns)
  figure = Figure(figsize=(4.6 * columns, 2.7 * lines), layout="constrained")
  grid = figure.subplots(lines, columns, squeeze=False).ravel()
  for axes in grid[len(panels) :]:
    axes.axis("off")
  for axes, (title, names) in zip(grid, panels.items(), strict=False):
    for name in names:
      there = np.isfinite(log[name])
      axes.plot(log["step"][there], log[name][there], marker=".", label=name)
    axes.set_xlabel("step")
    axes.set_ylabel(title)
    axes.grid(color="0.92")
    if len(names) > 1:
      axes.legend(fontsize=8)
  save_figure(figure, path)


def _panels(names: Iterable[str]) -> dict[str, list[str]]:
  """Return the columns of each panel, by its title."""
  listed = list(names)
  panels = {
    title: [name for name in listed if name.startswith(starts)]
    for title, starts in _PANELS.items()
  }
  panels |= {name: [name] for name in listed if name.startswith(_EVALUATION)}
  return {title: found for title, found in panels.items() if found}
