"""Costs of samplers as a table."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from jaxflow.metrics.text_tables import render
from jaxflow.reports.costs import Cost

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


def cost_table(costs: Sequence[Cost]) -> str:
  """Render costs as text, a line each.

  Args:
    costs: any, in the order of printing.

  Returns:
    Lines of at most 100 columns, grouped by batch.
  """
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
  """Write a cost under the names of COST_COLUMNS.

  Args:
    cost: any.

  Returns:
    A text for each column.
  """
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
