"""Training laws of t and of pairs (t, s), and time grids for sampling."""

from jaxflow.times.grids import (
  Grid,
  karras_grid,
  log_grid,
  shifted_grid,
  uniform_grid,
)
from jaxflow.times.laws import (
  ArctanLogNormal,
  Constant,
  Interleaved,
  Karras,
  Law,
  LogitNormal,
  LogNormal,
  TimeSampler,
  Uniform,
)
from jaxflow.times.pairs import (
  AdjacentPair,
  LimitedPair,
  PairSampler,
  Quantiles,
  SortedPair,
  TruncatedPair,
  at,
)
from jaxflow.times.walks import (
  AdjacentTriple,
  StartTimes,
  TrajectorySampler,
  TrajectoryTimes,
  TripleSampler,
)

__all__ = [
  "AdjacentPair",
  "AdjacentTriple",
  "ArctanLogNormal",
  "Constant",
  "Grid",
  "Interleaved",
  "Karras",
  "Law",
  "LimitedPair",
  "LogNormal",
  "LogitNormal",
  "PairSampler",
  "Quantiles",
  "SortedPair",
  "StartTimes",
  "TimeSampler",
  "TrajectorySampler",
  "TrajectoryTimes",
  "TripleSampler",
  "TruncatedPair",
  "Uniform",
  "at",
  "karras_grid",
  "log_grid",
  "shifted_grid",
  "uniform_grid",
]
