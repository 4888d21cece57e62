"""Training curves: read logs and draw them."""

import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxflow.errors import UsageError
from jaxflow.figures.canvas import save_figure
from jaxflow.reading import read_table

# Title of each panel, and the prefix of its columns.
_PANELS = {
  "loss": "loss",
  "raw losses, unweighted": "raw",
  "gradient norm": "gradient_norm",
  "samples per second": "samples_per_second",
}
# Columns of evaluations that are costs, not metrics.
_TIMES = ("seconds", "share")


def read_log(path: pathlib.Path) -> dict[str, NDArray[np.float64]]:
  """Read a `metrics.csv` or an `evaluations.csv` as columns, NaN for a gap."""
  try:
    rows, damaged = read_table(path)
  except OSError as error:
    raise UsageError(f"{path} cannot be read ({error})") from error
  if damaged and not rows:
    raise UsageError(f"{path} cannot be read (all rows are damaged)")
  return {
    name: np.array([float(row[name] or math.nan) for row in rows])
    for name in (rows[0] if rows else ())
  }


def save_curves(
  log: Mapping[str, NDArray[np.float64]],
  path: str | os.PathLike[str],
  *,
  evaluations: Mapping[str, NDArray[np.float64]] | None = None,
  columns: int = 2,
) -> None:
  """Draw loss, raw losses, gradient norm, speed and evaluations over steps.

  Both are columns by name, "step" among them. The column "AVERAGE/nfeN/METRIC"
  of evaluations is a line in the panel of its metric. Panels stand in so many
  columns, at most.
  """
  panels = _panels(log)
  if not panels or not len(log.get("step", ())):
    raise UsageError("the log has no row with a loss; train for longer")
  _draw([*panels, *_evaluation_panels(evaluations or {})], path, columns)


def save_overlaid_curves(
  logs: Mapping[str, Mapping[str, NDArray[np.float64]]],
  path: str | os.PathLike[str],
  *,
  evaluations: Mapping[str, Mapping[str, NDArray[np.float64]]] | None = None,
  columns: int = 2,
) -> None:
  """Draw the curves of several runs, by name, in the same panels.

  Logs and evaluations are as those of `save_curves`.
  """
  panels: dict[str, _Panel] = {}
  for make, given in ((_panels, logs), (_evaluation_panels, evaluations or {})):
    for run, log in given.items():
      for panel in make(log):
        alone = len(panel.lines) == 1
        lines = {
          run if alone else f"{run}: {name}": line
          for name, line in panel.lines.items()
        }
        mine = panels.setdefault(panel.title, _Panel(panel.title, {}, True))
        mine.lines.update(lines)
  if not any(len(log.get("step", ())) for log in logs.values()):
    raise UsageError("no log has a row with a loss; train for longer")
  _draw([*panels.values()], path, columns)


def _draw(
  panels: Sequence["_Panel"], path: str | os.PathLike[str], columns: int
) -> None:
  from matplotlib.figure import Figure

  columns = min(columns, len(panels))
  lines = math.ceil(len(panels) / columns)
  figure = Figure(figsize=(4.6 * columns, 2.7 * lines), layout="constrained")
  grid = figure.subplots(lines, columns, squeeze=False).ravel()
  for axes in grid[len(panels) :]:
    axes.axis("off")
  for axes, panel in zip(grid, panels, strict=False):
    for label, (step, values) in panel.lines.items():
      there = np.isfinite(values)
      axes.plot(step[there], values[there], marker=".", label=label)
    axes.set(xlabel="step", ylabel=panel.title)
    axes.grid(color="0.92")
    if len(panel.lines) > 1 or panel.legend:
      axes.legend(fontsize=8)
  save_figure(figure, path)


class _Panel(NamedTuple):
  """Lines `(step, value)`; `legend` asks for one even for a single line."""

  title: str
  lines: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
  legend: bool = False


def _panels(log: Mapping[str, NDArray[np.float64]]) -> list[_Panel]:
  """Return the panels of a training log."""
  step = log.get("step", np.zeros(0))
  panels = (
    _Panel(title, {k: (step, v) for k, v in log.items() if k.startswith(start)})
    for title, start in _PANELS.items()
  )
  return [panel for panel in panels if panel.lines]


def _evaluation_panels(log: Mapping[str, NDArray[np.float64]]) -> list[_Panel]:
  """Return a panel for each metric, with a line for each way to sample."""
  panels: dict[str, _Panel] = {}
  for name, values in log.items():
    if name not in ("step", *_TIMES):
      way, _, metric = name.rpartition("/")
      panel = panels.setdefault(metric, _Panel(metric, {}, True))
      panel.lines[way] = log["step"], values
  return list(panels.values())
