"""What sampling costs: a table, and a picture of quality against latency."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from rich import box
from rich.table import Table

from jaxflow.errors import UsageError
from jaxflow.evaluation.files import replace_file
from jaxflow.evaluation.latency import Latency
from jaxflow.evaluation.stored import leading_metric
from jaxflow.evaluation.tables import render


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
  """How good samples are.

  Attributes:
    value: of the samples.
    real: of real data in their place, the floor.
  """

  value: float
  real: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
  """What one sampler costs at one batch size.

  Attributes:
    model: "run" or "teacher".
    method: the row of METHODS that trained it.
    solver: what applies the network.
    nfe: network calls per sample.
    batch: samples at a time.
    compile_seconds: time to compile it, or to read it from a cache of JAX.
    latency: of one batch.
    samples_per_second: from the median.
    memory: bytes on a device at the fullest moment.
    flops: matrix products' FLOPs per sample.
    network: latency of one network call of the same batch.
    overhead: how much longer the sampler takes than `nfe` network calls, as a
      share of them; below zero where one program beats `nfe`.
    overhead_error: standard error of `overhead`.
    flops_overhead: FLOPs of matrix products beyond those of the calls, as a
      share; exact.
    operations_overhead: the same of all arithmetic, as the compiler counts it;
      None of programs with loops, which it does not count.
    scores: by the names of metrics, those that are known.
  """

  model: str
  method: str
  solver: str
  nfe: int
  batch: int
  compile_seconds: float
  latency: Latency
  samples_per_second: float
  memory: int
  flops: float
  network: Latency
  overhead: float
  overhead_error: float
  flops_overhead: float
  operations_overhead: float | None
  scores: Mapping[str, Quality]


def cost_table(costs: Sequence[Cost]) -> str:
  """Render costs as text, a line each.

  Args:
    costs: any, in the order of printing.

  Returns:
    Lines of at most 100 columns.
  """
  grid = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
  grid.add_column("\nmodel, solver", min_width=21)
  for name in (
    *("\nNFE", "compile\ns", "median\nms", "p95\nms", "\nsamples/s"),
    *("memory\nMB", "MFLOP\n/sample", "time over\ncalls, %"),
    "FLOPs\nover, %",
  ):
    grid.add_column(name, justify="right", overflow="fold")
  batch = None
  for cost in costs:
    if cost.batch != batch:
      batch = cost.batch
      grid.add_section()
      grid.add_row(f"batch {batch}")
    grid.add_row(
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
    )
  return render(grid)


def shared_metric(costs: Sequence[Cost]) -> str | None:
  """Return the leading metric that all of some costs have, None without one.

  Args:
    costs: at least one.
  """
  if not costs:
    return None
  names = set.intersection(*(set(cost.scores) for cost in costs))
  return leading_metric({k: 1 for k in costs[0].scores if k in names})


def save_tradeoff(costs: Sequence[Cost], path: str | os.PathLike[str]) -> None:
  """Write a picture of quality against latency, a point a model and NFE.

  Quality is the metric that all have, over its value for real data; the batch
  is the largest.

  Args:
    costs: as of `cost_table`.
    path: where to write a PNG; a file of that name is replaced in one step.

  Raises:
    UsageError: there is no metric that all have.
  """
  metric = shared_metric(costs)
  if metric is None:
    raise UsageError("no metric is known of all samplers; run evaluate first")
  batch = max(cost.batch for cost in costs)
  chosen = [cost for cost in costs if cost.batch == batch]
  figure = Figure(figsize=(7, 4.5), dpi=110, layout="constrained")
  canvas = FigureCanvasAgg(figure)
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
  replace_file(path, lambda file: canvas.print_png(file))
