"""Samplers: how a flow map or a denoiser is applied over a grid of times.

A sampler is called as `Sampler`, `(function, noise, times, cond, *, path,
key)`. An argument means the same in all of them:

  function    for `Jumps`, `Consistency` and `Gamma` a flow map; for the
              subclasses of `Denoising` a network that predicts data
  noise       points at `times[0]`, `[B, ...]`: `paths.start(path, unit_noise)`
  times       decreasing grid `[n + 1]` from t_max to t_min of the path, n >= 1
  cond        the condition, of leading axis B, or None
  path        the path on which to step or to renoise
  key         random key, or one for each row, `[B]`, of the noise of the steps
  step_noise  unit noise of the steps instead of the key's: `[n, B, ...]`, of
              `Consistency` `[n - 1, B, ...]`; samplers that draw none ignore it

A sampler returns the points at `times[-1]`, `[B, ...]`. It raises ValueError if
the grid has fewer than two times, or if it is not made for the path.
"""

from jaxflow.sampling.denoising import DDIM, Denoising, EDMHeun
from jaxflow.sampling.jumps import (
  Consistency,
  Gamma,
  Jumps,
  renoise,
  sample,
)
from jaxflow.sampling.multistep import DPMSolver
from jaxflow.sampling.steps import Sampler, Steps, check_grid, make_sampler

__all__ = [
  "DDIM",
  "Consistency",
  "DPMSolver",
  "Denoising",
  "EDMHeun",
  "Gamma",
  "Jumps",
  "Sampler",
  "Steps",
  "check_grid",
  "make_sampler",
  "renoise",
  "sample",
]
