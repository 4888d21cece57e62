"""Costs of samplers, as `bench.json` stores them and as a table."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

from rich import box
from rich.table import Table

from jaxflow.errors import UsageError
from jaxflow.metrics.text_tables import render
from jaxflow.reports.latency import Latency

__all__ = [
  "COST_COLUMNS",
  "Cost",
  "Quality",
  "cost_cells",
  "cost_table",
  "read_costs",
]

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
  """A metric of samples, beside that of real data.

  Attributes:
    value: Of the samples.
    real: Of real data in their place, the floor.
  """

  value: float
  real: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
  """The cost of one sampler at one batch size.

  Attributes:
    model: "run" or "teacher".
    method: The row of METHODS that trained it.
    solver: Name of the sampler, solver or flow map.
    nfe: Network calls per sample.
    batch: Samples at a time.
    compile_seconds: Time to compile it, or to read it from a cache of JAX.
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

  @classmethod
  def of(cls, row: Mapping[str, Any]) -> Self:
    """Return the cost of which `dataclasses.asdict` gave a row."""
    scores = {k: Quality(**v) for k, v in row["scores"].items()}
    times = {k: Latency(**row[k]) for k in ("latency", "network")}
    return cls(**{**row, **times, "scores": scores})


def read_costs(path: pathlib.Path) -> list[Cost]:
  """Return the costs in a `bench.json`; none without a file.

  Raises:
    UsageError: If it is no file of `jaxflow bench`.
  """
  try:
    return [Cost.of(row) for row in json.loads(path.read_text())["rows"]]
  except FileNotFoundError:
    return []
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise UsageError(
      f"{path} cannot be read ({error}): delete it, or run jaxflow bench again"
    ) from error


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
