"""Flow maps, which carry a point from time t to an earlier time s.

Each function turns a network `model_fn` into a flow map. Both are called as
`(xt, t, s, cond)`:

  xt    points at time t, `[B, ...]`
  t, s  times `[B]`, s <= t, in units of the path
  cond  the condition, of leading axis B, or None; a network with guidance as an
        input takes that of `guidance.inputs`, its flow map labels or None

A flow map returns the points at s, `[B, ...]`. Each function says what its
network predicts. Options mean the same in all of them:

  path        the path on which the points lie
  sigma_data  standard deviation of the data; the path is then that of EDM
  solver      the step of an ODE; see `solvers`
  omega       guidance scale; 1 is none
"""

from jaxflow.flow_maps.skips import (
  edm_denoiser,
  edm_skip,
  free,
  generator,
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
  identity,
  ode_step,
  rotation,
  scaled_velocity,
  trigonometric,
)

__all__ = [
  "average_velocity",
  "ddim_step",
  "dyadic_velocity",
  "edm_denoiser",
  "edm_skip",
  "free",
  "generator",
  "guided_step",
  "guided_velocity",
  "hard_boundary",
  "identity",
  "linear_skip",
  "ode_step",
  "rotation",
  "scaled_velocity",
  "trajectory",
  "trigonometric",
]
