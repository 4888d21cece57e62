"""Losses: pure functions of a network, a key and a batch."""

from jaxflow.losses.consistency import consistency_loss
from jaxflow.losses.consistency_trajectory import consistency_trajectory_loss
from jaxflow.losses.continuous_consistency import continuous_consistency_loss
from jaxflow.losses.continuous_time import continuous_time_consistency_loss
from jaxflow.losses.denoising import denoising_loss
from jaxflow.losses.discriminator import discriminator_loss
from jaxflow.losses.distillation import distillation_loss
from jaxflow.losses.flow_guided_distillation import (
  flow_guided_distillation_loss,
)
from jaxflow.losses.flow_matching import flow_matching_loss
from jaxflow.losses.guidance_distillation import guidance_distillation_loss
from jaxflow.losses.improved_mean_flow import improved_mean_flow_loss
from jaxflow.losses.mean_flow import mean_flow_loss
from jaxflow.losses.mid_training import mid_training_loss
from jaxflow.losses.moment_matching import moment_matching_loss
from jaxflow.losses.progressive_distillation import (
  progressive_distillation_loss,
)
from jaxflow.losses.shortcut import shortcut_loss

__all__ = [
  "consistency_loss",
  "consistency_trajectory_loss",
  "continuous_consistency_loss",
  "continuous_time_consistency_loss",
  "denoising_loss",
  "discriminator_loss",
  "distillation_loss",
  "flow_guided_distillation_loss",
  "flow_matching_loss",
  "guidance_distillation_loss",
  "improved_mean_flow_loss",
  "mean_flow_loss",
  "mid_training_loss",
  "moment_matching_loss",
  "progressive_distillation_loss",
  "shortcut_loss",
]
