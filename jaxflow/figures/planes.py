"""Pictures of points in the plane: scatter plots, densities, trajectories."""

import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.errors import UsageError
from jaxflow.figures.canvas import save_figure
from jaxflow.metrics.points import as_points

if TYPE_CHECKING:
  from matplotlib.axes import Axes

_BINS = 50


def save_points(
  points: ArrayLike,
  path: str | os.PathLike[str],
  reference: ArrayLike | None = None,
) -> None:
  """Write a scatter of points [N, 2], above real ones [M, 2], as a PNG."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(6, 6), layout="constrained")
  axes = figure.add_subplot()
  if reference is not None:
    real = _plane("reference", reference)
    axes.scatter(*real.T, s=4, color="0.75", label="real data")
  samples = _plane("points", points)
  axes.scatter(*samples.T, s=4, color="tab:blue", label="samples")
  axes.set_aspect("equal", adjustable="datalim")
  axes.legend(loc="upper right")
  save_figure(figure, path)


def save_density(
  samples: ArrayLike, data: ArrayLike, path: str | os.PathLike[str]
) -> None:
  """Write the densities of samples [N, 2] and data [M, 2] on one scale."""
  from matplotlib.figure import Figure

  parts = {"samples": _plane("samples", samples), "data": _plane("data", data)}
  # The data set the limits: outliers among the samples must not.
  low, high = parts["data"].min(axis=0), parts["data"].max(axis=0)
  margin = 0.15 * (high - low).max() + 1e-9
  edges = list(np.linspace(low - margin, high + margin, _BINS + 1, axis=1))
  figure = Figure(figsize=(9, 4.2), layout="constrained")
  area = np.outer(np.diff(edges[0]), np.diff(edges[1]))
  densities = {
    name: np.histogram2d(*points.T, bins=edges)[0] / len(points) / area
    for name, points in parts.items()
  }
  highest = max(density.max() for density in densities.values())
  panels = figure.subplots(1, 2, sharex=True, sharey=True)
  mesh = None
  for axes, (name, density) in zip(panels, densities.items(), strict=True):
    inside = density.ravel() @ area.ravel()
    mesh = axes.pcolormesh(
      *edges, density.T, vmin=0, vmax=highest, cmap="viridis"
    )
    axes.set_title(f"{name}: {len(parts[name])} points, {inside:.1%} shown")
    _name(axes)
  assert mesh is not None
  figure.colorbar(mesh, ax=panels, label="density")
  save_figure(figure, path)


def save_trajectories(
  points: ArrayLike, times: ArrayLike, path: str | os.PathLike[str]
) -> None:
  """Write trajectories [T, N, 2] from noise to data, coloured by time [T]."""
  from matplotlib.collections import LineCollection
  from matplotlib.figure import Figure

  array, when = np.asarray(points, np.float64), np.asarray(times, np.float64)
  if array.ndim != 3 or array.shape[2] != 2 or len(array) != len(when):
    raise UsageError(
      f"points has shape {array.shape} with {len(when)} times; give [T, N, 2] "
      "and [T]"
    )
  as_points("points", array)
  figure = Figure(figsize=(6.4, 5.4), layout="constrained")
  axes = figure.add_subplot()
  # [T, N, 2] -> one piece between neighbours in time, [(T - 1) N, 2, 2].
  pieces = np.stack([array[:-1], array[1:]], axis=2).reshape(-1, 2, 2)
  middle = np.repeat((when[:-1] + when[1:]) / 2, array.shape[1])
  lines = LineCollection(
    list(pieces), array=middle, cmap="plasma", linewidths=0.8
  )
  axes.add_collection(lines)
  axes.scatter(*array[0].T, s=8, color="0.4", label="noise", zorder=3)
  axes.scatter(*array[-1].T, s=8, color="tab:blue", label="end", zorder=3)
  figure.colorbar(lines, ax=axes, label="time t (0 is data)")
  _name(axes)
  axes.legend(loc="upper right")
  save_figure(figure, path)


def save_arrows(
  noise: ArrayLike, samples: ArrayLike, path: str | os.PathLike[str]
) -> None:
  """Write the map from noise [N, 2] to samples [N, 2] as arrows."""
  from matplotlib.figure import Figure

  begin, end = _plane("noise", noise), _plane("samples", samples)
  if len(begin) != len(end):
    raise UsageError(f"noise has {len(begin)} rows, samples {len(end)}")
  figure = Figure(figsize=(6, 5.4), layout="constrained")
  axes = figure.add_subplot()
  axes.quiver(
    *begin.T,
    *(end - begin).T,
    angles="xy",
    scale_units="xy",
    scale=1,
    width=0.0025,
    headwidth=6,
    headlength=7,
    color="0.65",
  )
  axes.scatter(*begin.T, s=8, color="tab:orange", label="unit noise", zorder=3)
  axes.scatter(*end.T, s=8, color="tab:blue", label="samples", zorder=3)
  _name(axes)
  axes.legend(loc="upper right")
  save_figure(figure, path)


def _name(axes: "Axes") -> None:
  axes.set(xlabel="first coordinate", ylabel="second coordinate")
  axes.set_aspect("equal", adjustable="box")


def _plane(name: str, points: ArrayLike) -> NDArray[np.float64]:
  """Return points [N, 2]."""
  if np.ndim(points) != 2 or np.shape(points)[1] != 2:
    raise UsageError(f"{name} has shape {np.shape(points)}; give [N, 2]")
  return as_points(name, points)
