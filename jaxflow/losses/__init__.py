"""Losses: pure functions of a network, a key and a batch.

An argument means the same in every loss. A loss describes only what it adds,
its own options among them; t is a time of its path, B the size of the batch.

  model_fn       network to train, (xt, t, s, cond) -> [B, ...]; t and s are [B]
  key            random key for times, dropped labels and noise
  batch          data [B, ...]; optional cond, of leading axis B, and noise of
                 unit variance, drawn if absent
  path           joins data and noise; see `paths`
  sample_times   (key, B) -> t [B], or a pair (t, s) with s <= t; see `times`
  flow_map       makes the flow map f of a network; see `flow_maps`
  target_fn      network of the target, an EMA; default: model_fn
  teacher        network that predicts the velocity, guided if wanted
  solver         the teacher's step; see `solvers`
  discriminator  (x, cond) -> logits [B] or [B, heads]; its parameters are
                 constants for the generator
  criterion      `adversarial.hinge`, `logistic` or `relativistic`
  prediction     what the network predicts; see `predictions`
  sigma_data     standard deviation of the data, for "edm"
  distance       (a, b) -> [B]; see `weights`
  weight         (path, t, s) -> [B]; see `weights`
  block          (m, k): of every m rows the first k keep their s, the others
                 train at s = t; m divides B
  norm_power     p of the adaptive weight; 0 is the plain squared error
  norm_eps       added to the summed squared error in that weight, in its units
  tangent_clip   largest Euclidean norm of a sample's derivative from the JVP; 0
                 does not clip
  label_dropout  share of the conditions that become the null condition
  null_cond      the null condition, of labels their number; needed with label
                 dropout and guidance; see `guidance`
  progress       share of training that is done, scalar in [0, 1]

Drawn times have the type of the data, float32 at least. A loss returns the loss
`[B]`, of that type, and a dict of scalar metrics, means over the batch:

  raw                     the loss without weights
  raw_flow, raw_interval  the same of the rows with s = t and with s < t
  tangent_norm            Euclidean norm of a derivative, before it is clipped

A loss that keeps something from step to step takes it as an argument with the
mark `options.Memory`, and returns the new values third, by argument.

It raises ValueError where batch, path and options do not fit one another. The
message names the argument and says what to give.
"""

from jaxflow.losses.adversarial import discriminator_loss
from jaxflow.losses.adversarial_flow import adversarial_flow_loss
from jaxflow.losses.alpha_flow import alpha_flow_loss
from jaxflow.losses.consistency import (
  consistency_loss,
  continuous_time_consistency_loss,
)
from jaxflow.losses.consistency_trajectory import consistency_trajectory_loss
from jaxflow.losses.continuous_consistency import continuous_consistency_loss
from jaxflow.losses.decoupled_mean_flow import decoupled_mean_flow_loss
from jaxflow.losses.denoising import denoising_loss
from jaxflow.losses.distillation import distillation_loss
from jaxflow.losses.distribution_matching import (
  distribution_matching_loss,
  fake_score_loss,
)
from jaxflow.losses.drifting import drifting_loss
from jaxflow.losses.flow_anchored_consistency import (
  flow_anchored_consistency_loss,
)
from jaxflow.losses.flow_guided_distillation import (
  flow_guided_distillation_loss,
)
from jaxflow.losses.flow_matching import flow_matching_loss
from jaxflow.losses.frechet_distance import frechet_distance_loss
from jaxflow.losses.guidance_distillation import guidance_distillation_loss
from jaxflow.losses.improved_mean_flow import improved_mean_flow_loss
from jaxflow.losses.lagrangian import lagrangian_loss
from jaxflow.losses.mean_flow import mean_flow_loss
from jaxflow.losses.mid_training import mid_training_loss
from jaxflow.losses.moment_matching import moment_matching_loss
from jaxflow.losses.progressive_distillation import (
  progressive_distillation_loss,
)
from jaxflow.losses.shortcut import shortcut_loss
from jaxflow.losses.truncated_consistency import truncated_consistency_loss
from jaxflow.losses.twin_flow import twin_flow_loss

__all__ = [
  "adversarial_flow_loss",
  "alpha_flow_loss",
  "consistency_loss",
  "consistency_trajectory_loss",
  "continuous_consistency_loss",
  "continuous_time_consistency_loss",
  "decoupled_mean_flow_loss",
  "denoising_loss",
  "discriminator_loss",
  "distillation_loss",
  "distribution_matching_loss",
  "drifting_loss",
  "fake_score_loss",
  "flow_anchored_consistency_loss",
  "flow_guided_distillation_loss",
  "flow_matching_loss",
  "frechet_distance_loss",
  "guidance_distillation_loss",
  "improved_mean_flow_loss",
  "lagrangian_loss",
  "mean_flow_loss",
  "mid_training_loss",
  "moment_matching_loss",
  "progressive_distillation_loss",
  "shortcut_loss",
  "truncated_consistency_loss",
  "twin_flow_loss",
]
