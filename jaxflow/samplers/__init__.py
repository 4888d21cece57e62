"""Samplers with options: how a flow map or a denoiser is applied over a grid.

A sampler is called as `sampling.Sampler`, `(function, noise, times, cond, *,
path, key)`. `Jumps`, `Consistency` and `Gamma` take a flow map; the subclasses
of `Denoising` take a network that predicts data.
"""

from jaxflow.samplers.denoising import DDIM, Denoising, EDMHeun
from jaxflow.samplers.jumps import Consistency, Gamma, Jumps
from jaxflow.samplers.multistep import DPMSolver

__all__ = [
  "DDIM",
  "Consistency",
  "DPMSolver",
  "Denoising",
  "EDMHeun",
  "Gamma",
  "Jumps",
]
