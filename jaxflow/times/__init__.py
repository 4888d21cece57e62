"""Training distributions of t and of pairs (t, s), and grids for sampling.

  times       called as                              returns
  ----------  -------------------------------------  ---------------------------
  law         `law(key, n)`                          t `[n]`
  pair        `pair(key, n)`                         (t, s), s <= t, `[n]` each
  curriculum  `curriculum.at(progress)(key, n)`, at  the same; pairs move closer
              a share of training in [0, 1]          during training
  triple      `triple(key, n)`                       (t, m, s), `[n]` each
  walk        `walk(key, n)`                         times `[H + 1, n]`, s `[n]`
  grid        `grid(num_points)`, after its options  decreasing times
              are bound                              `[num_points]`
  ratio       `ratio(progress, t, s)`                alpha, a number or `[B]`

A walk is a `TrajectoryTimes`. Continuous laws, most pairs, and what `at` of a
curriculum returns have a method `transform`. It maps the draws that a call
makes from its key, so a test or a comparison can give draws of its own. Draws
are uniform in [0, 1) or standard normal, `[n]`; those of a pair are two, or of
t alone. The options `t_min` and `t_max` are the ends of the times, in units of
the path's t.
"""

from jaxflow.times.curricula import AdaptivePair, DoublingPair, ShrinkingPair
from jaxflow.times.dyadic import DyadicPair
from jaxflow.times.grids import (
  Grid,
  extended_grid,
  given_grid,
  karras_grid,
  karras_ratio_grid,
  log_grid,
  log_snr_grid,
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
  LogStudent,
  TimeSampler,
  Uniform,
  UniformSteps,
  uniform_draws,
)
from jaxflow.times.pairs import (
  AdjacentPair,
  GapPair,
  LimitedPair,
  PairSampler,
  Quantiles,
  RectifiedPair,
  SeparatePair,
  SortedLaws,
  SortedPair,
  TruncatedPair,
  at,
  draw,
)
from jaxflow.times.ratios import (
  ConstantRatio,
  ExponentialRatio,
  Ratio,
  SigmoidRatio,
)
from jaxflow.times.transitions import TransitionPair
from jaxflow.times.walks import (
  AdjacentTriple,
  EndTimes,
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
  "ConstantRatio",
  "DoublingPair",
  "DyadicPair",
  "EndTimes",
  "ExponentialRatio",
  "GapPair",
  "Grid",
  "Interleaved",
  "Karras",
  "Law",
  "LimitedPair",
  "LogNormal",
  "LogStudent",
  "LogitNormal",
  "PairSampler",
  "Quantiles",
  "Ratio",
  "RectifiedPair",
  "SeparatePair",
  "ShrinkingPair",
  "SigmoidRatio",
  "SortedLaws",
  "SortedPair",
  "StartTimes",
  "TimeSampler",
  "TrajectorySampler",
  "TrajectoryTimes",
  "TransitionPair",
  "TripleSampler",
  "TruncatedPair",
  "Uniform",
  "UniformSteps",
  "at",
  "draw",
  "extended_grid",
  "given_grid",
  "karras_grid",
  "karras_ratio_grid",
  "log_grid",
  "log_snr_grid",
  "shifted_grid",
  "uniform_draws",
  "uniform_grid",
]
