"""Costs of sampling, and pages about a run."""

from jaxflow.reports.costs import (
  COST_COLUMNS,
  Cost,
  Quality,
  cost_cells,
  cost_table,
  read_costs,
)
from jaxflow.reports.interpolation import slerp
from jaxflow.reports.latency import Latency, excess, time_together
from jaxflow.reports.tradeoff import save_tradeoff, shared_metric

__all__ = [
  "COST_COLUMNS",
  "Cost",
  "Latency",
  "Quality",
  "cost_cells",
  "cost_table",
  "excess",
  "read_costs",
  "save_tradeoff",
  "shared_metric",
  "slerp",
  "time_together",
]
