"""The rows of METHODS that studies of all rows have measured."""

from jaxflow.methods import METHODS

# They came after the last full run of these studies.
LATER = (
  "mean_flow_distillation",
  "rectified_mean_flow",
  "alpha_flow",
  "solution_flow",
  "pixel_mean_flow",
  "decoupled_mean_flow",
  "lagrangian",
  "terminal_velocity",
  "flow_anchored_consistency",
  "twin_flow",
  "truncated_consistency",
  "adversarial_flow",
  "drifting",
  "frechet_distance_loss",
  "distribution_matching",
  "f_distillation",
)
MEASURED = tuple(name for name in METHODS if name not in LATER)
