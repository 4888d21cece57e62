"""Training distributions of t and of pairs (t, s), and grids for sampling."""

from jaxflow.times.curricula import AdaptivePair, DoublingPair, ShrinkingPair
from jaxflow.times.dyadic import DyadicPair
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
from jaxflow.times.path_grids import (
  extended_grid,
  given_grid,
  karras_ratio_grid,
  log_snr_grid,
)
from jaxflow.times.walks import (
  AdjacentTriple,
  StartTimes,
  TrajectorySampler,
  TrajectoryTimes,
  TripleSampler,
)

__all__ = [
  "AdaptivePair",
  "AdjacentPair",
  "AdjacentTriple",
  "ArctanLogNormal",
  "Constant",
  "DoublingPair",
  "DyadicPair",
  "Grid",
  "Interleaved",
  "Karras",
  "Law",
  "LimitedPair",
  "LogNormal",
  "LogitNormal",
  "PairSampler",
  "Quantiles",
  "ShrinkingPair",
  "SortedPair",
  "StartTimes",
  "TimeSampler",
  "TrajectorySampler",
  "TrajectoryTimes",
  "TripleSampler",
  "TruncatedPair",
  "Uniform",
  "at",
  "extended_grid",
  "given_grid",
  "karras_grid",
  "karras_ratio_grid",
  "log_grid",
  "log_snr_grid",
  "shifted_grid",
  "uniform_grid",
]
