"""A picture of quality against latency."""

import os
from collections.abc import Sequence

from jaxflow.errors import UsageError
from jaxflow.evaluation.stored import leading_metric
from jaxflow.figures.canvas import save_figure
from jaxflow.reports.costs import Cost

__all__ = ["save_tradeoff", "shared_metric"]


def shared_metric(costs: Sequence[Cost]) -> str | None:
  """Return the leading metric that all costs have, or None."""
  if not costs:
    return None
  names = set.intersection(*(set(cost.scores) for cost in costs))
  return leading_metric({k: 1 for k in costs[0].scores if k in names})


def save_tradeoff(costs: Sequence[Cost], path: str | os.PathLike[str]) -> None:
  """Write a picture of quality against latency, a point a model and NFE.

  Quality is the metric that all have, over its value for real data; the batch
  is the largest.

  Args:
    costs: The costs.
    path: A PNG file; one of that name is replaced in one step.

  Raises:
    UsageError: If there is no metric that all have.
  """
  from matplotlib.figure import Figure
  from matplotlib.ticker import LogLocator, NullLocator

  metric = shared_metric(costs)
  if metric is None:
    raise UsageError("no metric is known of all samplers; run evaluate first")
  batch = max(cost.batch for cost in costs)
  chosen = [cost for cost in costs if cost.batch == batch]
  figure = Figure(figsize=(7, 4.5), layout="constrained")
  axes = figure.add_subplot()
  # Names under the points of one line and over those of the other.
  for model, marker, up_or_down in (("run", "o", -13), ("teacher", "s", 6)):
    points = [cost for cost in chosen if cost.model == model]
    points.sort(key=lambda cost: cost.nfe)
    if not points:
      continue
    x = [1e3 * cost.latency.median for cost in points]
    y = [
      cost.scores[metric].value / cost.scores[metric].real for cost in points
    ]
    axes.plot(x, y, marker=marker, label=f"{model}: {points[0].method}")
    for cost, across, up in zip(points, x, y, strict=True):
      calls = f"{cost.nfe} call{'s' if cost.nfe > 1 else ''}"
      solver = f", {cost.solver}" if model == "teacher" else ""
      axes.annotate(
        calls + solver,
        (across, up),
        textcoords="offset points",
        xytext=(6, up_or_down),
        fontsize=8,
      )
  axes.axhline(1, color="0.6", linestyle="--", linewidth=1, label="real data")
  axes.set_xscale("log")
  axes.set_yscale("log")
  axes.set_xlabel(f"latency of a batch of {batch}, median, ms")
  axes.set_ylabel(f"{metric}, multiples of that of real data")
  for axis in (axes.xaxis, axes.yaxis):
    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())
  axes.margins(x=0.2, y=0.12)
  axes.grid(color="0.92", which="both")
  axes.legend()
  save_figure(figure, path)
