"""Losses: pure functions of a network, a key and a batch."""

from jaxflow.losses.consistency import consistency_loss
from jaxflow.losses.consistency_trajectory import consistency_trajectory_loss
from jaxflow.losses.continuous_consistency import continuous_consistency_loss
from jaxflow.losses.continuous_time import continuous_time_consistency_loss
from jaxflow.losses.discriminator import discriminator_loss
from jaxflow.losses.flow_matching import flow_matching_loss
from jaxflow.losses.improved_mean_flow import improved_mean_flow_loss
from jaxflow.losses.mean_flow import mean_flow_loss
from jaxflow.losses.moment_matching import moment_matching_loss
from jaxflow.losses.shortcut import shortcut_loss

__all__ = [
  "consistency_loss",
  "consistency_trajectory_loss",
  "continuous_consistency_loss",
  "continuous_time_consistency_loss",
  "discriminator_loss",
  "flow_matching_loss",
  "improved_mean_flow_loss",
  "mean_flow_loss",
  "moment_matching_loss",
  "shortcut_loss",
]
