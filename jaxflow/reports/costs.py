"""Costs of samplers: as `bench.json` stores them, as a table, as a picture."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from rich import box
from rich.table import Table

from jaxflow.errors import UsageError
from jaxflow.figures.canvas import save_figure
from jaxflow.metrics.text_tables import render
from jaxflow.options import Amount, Count, Finite, Natural, Positive
from jaxflow.reading import read_json, reading

# Metrics by which samples of two runs are set side by side, the first that
# there is: of the network that everybody uses, of another, of none.
_LEADING = ("fid", "fd_", "sliced_wasserstein")
# Over calls: beyond what as many calls of the network take.
COST_COLUMNS = (
  "model, solver",
  "NFE",
  "compile\ns",
  "median\nms",
  "p95\nms",
  "samples/s",
  "memory\nMB",
  "MFLOP\n/sample",
  "time over\ncalls, %",
  "FLOPs\nover, %",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
  """A metric of samples, and of real data in their place: the floor."""

  value: float
  real: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latency:
  """Seconds of `num` calls; 95 of 100 do not exceed `p95`."""

  median: Positive
  p95: Positive
  num: Count

  @classmethod
  def of(cls, seconds: ArrayLike) -> Self:
    """Return the summary of the times `[N]` of calls."""
    array = np.asarray(seconds, np.float64)
    return cls(
      median=float(np.median(array)),
      p95=float(np.quantile(array, 0.95)),
      num=len(array),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
  """The cost of one sampler at one batch size.

  Attributes:
    model: "run" or "teacher".
    method: The row of METHODS that trained it.
    solver: Name of the sampler, solver or flow map.
    nfe: Network calls per sample.
    batch: Samples at a time.
    compile_seconds: Time to compile it.
    latency: Of one batch.
    samples_per_second: From the median.
    memory: Bytes on a device at the fullest moment.
    flops: FLOPs of matrix products per sample.
    network: Latency of one network call of the same batch.
    overhead: Time beyond that of `nfe` network calls, as a share of it; below
      zero where one program beats `nfe`.
    overhead_error: Standard error of `overhead`.
    flops_overhead: FLOPs of matrix products beyond those of the calls, as a
      share; exact.
    operations_overhead: The same of all arithmetic, as the compiler counts it;
      None of programs with loops, which it does not count.
    scores: Known metrics of the samples, by name.
  """

  model: str
  method: str
  solver: str
  nfe: Count
  batch: Count
  compile_seconds: Amount
  latency: Latency
  samples_per_second: Positive
  memory: Natural
  flops: Amount
  network: Latency
  overhead: Finite
  overhead_error: Amount
  flops_overhead: Finite
  operations_overhead: Finite | None
  scores: Mapping[str, Quality]


def read_costs(path: pathlib.Path) -> list[Cost]:
  """Return the costs in a `bench.json`; none without a file."""
  if not path.exists():
    return []
  with reading(path, "delete it, or run jaxflow bench again"):
    return read_json(path, {"rows": [Cost]})["rows"]


def cost_table(costs: Sequence[Cost]) -> str:
  """Return lines of at most 100 columns, a cost each, grouped by batch."""
  grid = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
  first, *others = COST_COLUMNS
  grid.add_column(first, min_width=21, vertical="bottom")
  for name in others:
    grid.add_column(name, justify="right", vertical="bottom")
  batch = None
  for cost in costs:
    if cost.batch != batch:
      batch = cost.batch
      grid.add_section()
      grid.add_row(f"batch {batch}")
    grid.add_row(*cost_cells(cost))
  return render(grid)


def cost_cells(cost: Cost) -> list[str]:
  """Return the text of a cost for each of COST_COLUMNS."""
  return [
    f"{cost.model}, {cost.solver}",
    str(cost.nfe),
    f"{cost.compile_seconds:.1f}",
    f"{1e3 * cost.latency.median:.3g}",
    f"{1e3 * cost.latency.p95:.3g}",
    f"{cost.samples_per_second:,.0f}",
    f"{cost.memory / 1e6:.3g}",
    f"{cost.flops / 1e6:.4g}",
    f"{100 * cost.overhead:+.1f}±{100 * cost.overhead_error:.1f}",
    f"{100 * cost.flops_overhead:+.2f}",
  ]


def leading_metric(scores: Mapping[str, Any]) -> str | None:
  """Return the metric by which samples are set beside others.

  That is "fid", else a Frechet distance of another network, else
  "sliced_wasserstein"; None where `scores` have none of these names.
  """
  for start in _LEADING:
    for name in scores:
      if name == start or (start.endswith("_") and name.startswith(start)):
        return name
  return None


def shared_metric(costs: Sequence[Cost]) -> str | None:
  """Return the leading metric that all costs have, or None."""
  if not costs:
    return None
  names = set.intersection(*(set(cost.scores) for cost in costs))
  return leading_metric({k: 1 for k in costs[0].scores if k in names})


def save_tradeoff(costs: Sequence[Cost], path: str | os.PathLike[str]) -> None:
  """Write a picture of quality against latency, a point a model and NFE.

  Quality is the metric that all have, over its value for real data; the batch
  is the largest. The PNG file is replaced in one step.
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
    scores = [cost.scores[metric] for cost in points]
    y = [score.value / score.real for score in scores]
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
  axes.set(
    xscale="log",
    yscale="log",
    xlabel=f"latency of a batch of {batch}, median, ms",
    ylabel=f"{metric}, multiples of that of real data",
  )
  for axis in (axes.xaxis, axes.yaxis):
    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())
  axes.margins(x=0.2, y=0.12)
  axes.grid(color="0.92", which="both")
  axes.legend()
  save_figure(figure, path)
