"""Losses: pure functions of a network, a key and a batch."""

from jaxflow.losses.consistency import consistency_loss
from jaxflow.losses.flow_matching import flow_matching_loss
from jaxflow.losses.mean_flow import mean_flow_loss

__all__ = ["consistency_loss", "flow_matching_loss", "mean_flow_loss"]
