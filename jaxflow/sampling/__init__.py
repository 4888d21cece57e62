"""Samplers: how a flow map or a denoiser is applied over a grid of times.

A sampler is called as `Sampler`, `(function, noise, times, cond, *, path,
key)`. `Jumps`, `Consistency` and `Gamma` take a flow map; the subclasses of
`Denoising` take a network that predicts data.
"""

from jaxflow.sampling.denoising import DDIM, Denoising, EDMHeun
from jaxflow.sampling.jumps import Consistency, Gamma, Jumps
from jaxflow.sampling.multistep import DPMSolver
from jaxflow.sampling.sample import (
  Sampler,
  check_grid,
  consistency_sample,
  make_sampler,
  renoise,
  sample,
)

__all__ = [
  "DDIM",
  "Consistency",
  "DPMSolver",
  "Denoising",
  "EDMHeun",
  "Gamma",
  "Jumps",
  "Sampler",
  "check_grid",
  "consistency_sample",
  "make_sampler",
  "renoise",
  "sample",
]
