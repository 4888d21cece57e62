"""Flow maps, which carry a point from time t to an earlier time s.

Each function turns a network into a flow map.
"""

from jaxflow.flow_maps.rotations import rotation, trigonometric
from jaxflow.flow_maps.skips import (
  edm_denoiser,
  edm_skip,
  free,
  hard_boundary,
  linear_skip,
  trajectory,
)
from jaxflow.flow_maps.velocities import (
  average_velocity,
  ddim_step,
  dyadic_velocity,
  guided_step,
  guided_velocity,
  ode_step,
)

__all__ = [
  "average_velocity",
  "ddim_step",
  "dyadic_velocity",
  "edm_denoiser",
  "edm_skip",
  "free",
  "guided_step",
  "guided_velocity",
  "hard_boundary",
  "linear_skip",
  "ode_step",
  "rotation",
  "trajectory",
  "trigonometric",
]
