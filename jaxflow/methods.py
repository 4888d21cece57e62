"""METHODS: every method is one row; open this file first.

A row says which loss trains the method, which flow map its network stands for,
how it samples, what it needs besides a data set, and the config values that
differ from the defaults of the loss. No other file knows a method's name.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

from jaxflow import flow_maps, losses, sampling
from jaxflow.options import Role, Unpaired, marked
from jaxflow.types import FlowMap, LossFunction, LossOutput

Need = Literal["target", "teacher", "progress", "pairs", "labels"]

# Whatever takes a discriminator has it trained by one loss.
_JUDGED: Mapping[str, Callable[..., LossOutput]] = MappingProxyType(
  {"discriminator": losses.discriminator_loss}
)
_JUMPS = sampling.Jumps()
_JUMPS_AND_NOISE = sampling.Consistency()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
  """One row of the table.

  Attributes:
    summary: What it does, in one line.
    paper: Authors, year and arXiv number.
    loss: A function of `jaxflow.losses`.
    flow_map: Makes a flow map of a network: `(model_fn, **options) -> FlowMap`.
    sampler: Applies the flow map over a grid of times, as jumps by default.
    teaches: Whether its network at s = t is a velocity, or the prediction that
      `loss.prediction` names, so that a trained run can be a teacher.
    needs: What the loss takes besides network and batch: "target" (an EMA
      network), "teacher" (a trained workdir), "progress" (the share of training
      that is done), "pairs" (data with the noise a teacher made them from),
      "labels" (of the data).
    companions: The losses of networks that learn beside it, by the section of
      the config that describes them.
    config: Values of the config that differ from the defaults.
  """

  summary: str
  paper: str
  loss: LossFunction
  flow_map: Callable[..., FlowMap]
  sampler: sampling.Sampler = _JUMPS
  teaches: bool = False
  needs: frozenset[Need] = frozenset()
  companions: Mapping[str, Callable[..., LossOutput]] = dataclasses.field(
    default_factory=lambda: _JUDGED
  )
  config: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def role_of_teacher(self) -> Role | None:
    """How the loss takes a teacher, None if it takes none."""
    marks = marked(self.loss, Role).values()
    return next((x for x in marks if x.section == "teacher"), None)

  def can_teach(self, other: "Method") -> bool:
    """Return whether a run of this row can be the teacher of another row.

    A first stage jumps from every point of a trajectory to its end, as its
    sampler does. None are a second stage, which has learned the noisy times
    alone, and a generator of which a law alone was asked, at noise.
    """
    role, own = other.role_of_teacher, self.role_of_teacher
    if role is None or not role.jumps:
      return self.teaches
    if own is not None and own.jumps:
      return False
    if marked(self.loss, Unpaired):
      return False
    return isinstance(self.sampler, sampling.Consistency)


_LOGIT_NORMAL_PAIR = {
  "name": "sorted_pair",
  "law": {"name": "logit_normal", "mean": -0.4, "std": 1.0},
}

# Angles, data of standard deviation 0.5, and a weight of every angle.
_ANGULAR = {
  "parameterization": {"name": "normalized"},
  "path": {"name": "trigonometric", "t_max": math.pi / 2, "noise_std": 0.5},
  "times": {
    "name": "arctan_log_normal",
    "mean": -1.0,
    "std": 1.4,
    "sigma_data": 0.5,
  },
  "loss": {"log_weight": {"name": "sinusoidal"}},
  "sample": {"grid": {"name": "uniform", "t_max": math.atan(80 / 0.5)}},
}


METHODS: Mapping[str, Method] = MappingProxyType(
  {
    "flow_matching": Method(
      summary="regress the velocity; sample by solving its ODE",
      paper="Lipman et al. 2022, arXiv:2210.02747",
      loss=losses.flow_matching_loss,
      flow_map=flow_maps.ode_step,
      teaches=True,
      config={"times": {"name": "uniform"}},
    ),
    "denoising": Method(
      summary="regress the data at every noise level (EDM)",
      paper="Karras et al. 2022, arXiv:2206.00364",
      loss=losses.denoising_loss,
      flow_map=flow_maps.ode_step,
      teaches=True,
      config={
        "path": {"name": "variance_exploding"},
        "times": {"name": "log_normal", "mean": -1.2, "std": 1.2},
        "flow_map": {"name": "ode_step", "solver": {"name": "heun"}},
        "sample": {"nfe": 36, "grid": {"name": "karras"}},
        "evaluation": {"nfe": (36,)},
      },
    ),
    # The flow matching loss in score space carries a factor sigma^2, here t^2:
    # the weight 1 / t^2 takes it out, the uniform weight leaves it in.
    "score_matching": Method(
      summary="regress the score; sample by solving its ODE",
      paper="Song et al. 2021, arXiv:2011.13456",
      loss=losses.flow_matching_loss,
      flow_map=flow_maps.ode_step,
      teaches=True,
      config={
        "path": {"name": "variance_exploding", "t_min": 0.05, "t_max": 3.0},
        "times": {"name": "uniform"},
        "loss": {"prediction": "score", "weight": {"name": "inverse_square"}},
        "sample": {"nfe": 100},
        "evaluation": {"nfe": (100,)},
      },
    ),
    "reflow": Method(
      summary="flow matching on a teacher's pairs: paths get straight",
      paper="Liu et al. 2022, arXiv:2209.03003",
      loss=losses.flow_matching_loss,
      flow_map=flow_maps.ode_step,
      teaches=True,
      needs=frozenset({"pairs"}),
      config={"times": {"name": "uniform"}},
    ),
    "knowledge_distillation": Method(
      summary="regress the end of a teacher's trajectory from its noise",
      paper="Luhman, Luhman 2021, arXiv:2101.02388",
      loss=losses.distillation_loss,
      flow_map=flow_maps.average_velocity,
      needs=frozenset({"pairs"}),
    ),
    "insta_flow": Method(
      summary="distil a rectified flow's pairs, also by features and a "
      "discriminator",
      paper="Liu et al. 2023, arXiv:2309.06380",
      loss=losses.distillation_loss,
      flow_map=flow_maps.average_velocity,
      needs=frozenset({"pairs"}),
    ),
    "annealed_reflow": Method(
      summary="go over from independent noise to a teacher's pairs",
      paper="Zhu, Liu, Liu 2024, arXiv:2407.12718",
      loss=losses.flow_matching_loss,
      flow_map=flow_maps.ode_step,
      teaches=True,
      needs=frozenset({"pairs", "progress"}),
      config={
        "times": {"name": "uniform"},
        "loss": {"coupling": {"name": "annealed"}},
      },
    ),
    "slim_flow": Method(
      summary="distil pairs, and a two-step path that a teacher finishes",
      paper="Zhu, Liu, Liu 2024, arXiv:2407.12718",
      loss=losses.flow_guided_distillation_loss,
      flow_map=flow_maps.average_velocity,
      needs=frozenset({"pairs", "teacher"}),
      config={"times": {"name": "uniform", "t_min": 0.2, "t_max": 0.8}},
    ),
    # On the linear path 1 / t^2 makes data errors velocity errors; teachers of
    # flow matching are trained there.
    "progressive_distillation": Method(
      summary="make one step of two teacher steps; repeat with half as many",
      paper="Salimans, Ho 2022, arXiv:2202.00512",
      loss=losses.progressive_distillation_loss,
      flow_map=flow_maps.ddim_step,
      teaches=True,
      needs=frozenset({"teacher"}),
      config={
        "times": {
          "name": "adjacent_triple",
          "grid": {"name": "uniform"},
          "num_steps": 8,
        },
        "loss": {"weight": {"name": "inverse_square"}},
        "sample": {"nfe": 8},
        "evaluation": {"nfe": (8,)},
      },
    ),
    "guidance_distillation": Method(
      summary="make one call at any guidance scale of two calls at one",
      paper="Meng et al. 2022, arXiv:2210.03142",
      loss=losses.guidance_distillation_loss,
      flow_map=flow_maps.guided_step,
      needs=frozenset({"teacher", "labels"}),
      config={
        "model": {"guidance_inputs": True},
        "times": {"name": "uniform"},
        "teacher": {"init_student": False},
      },
    ),
    "mid_training": Method(
      summary="map every point of a teacher's trajectory to its end",
      paper="Hu et al. 2025, arXiv:2509.24526",
      loss=losses.mid_training_loss,
      flow_map=flow_maps.edm_denoiser,
      sampler=_JUMPS_AND_NOISE,
      needs=frozenset({"teacher"}),
      config={
        "path": {"name": "variance_exploding"},
        "loss": {"grid": {"name": "log"}},
        "sample": {"grid": {"name": "karras"}},
      },
    ),
    "mean_flow": Method(
      summary="learn the average velocity from its differential identity",
      paper="Geng et al. 2025, arXiv:2505.13447",
      loss=losses.mean_flow_loss,
      flow_map=flow_maps.average_velocity,
      teaches=True,
      config={
        "model": {"second_time": True},
        "times": _LOGIT_NORMAL_PAIR,
      },
    ),
    "mean_flow_distillation": Method(
      summary="MeanFlow along a teacher's velocity",
      paper="Geng et al. 2025, arXiv:2505.13447",
      loss=losses.mean_flow_loss,
      flow_map=flow_maps.average_velocity,
      teaches=True,
      needs=frozenset({"teacher"}),
      config={
        "model": {"second_time": True},
        "times": _LOGIT_NORMAL_PAIR,
        # A flow as teacher has no second time.
        "teacher": {"init_student": False},
      },
    ),
    "rectified_mean_flow": Method(
      summary="MeanFlow on the straight paths of a teacher's pairs",
      paper="Zhang et al. 2025, arXiv:2511.23342",
      loss=losses.mean_flow_loss,
      flow_map=flow_maps.average_velocity,
      teaches=True,
      needs=frozenset({"pairs"}),
      config={
        "model": {"second_time": True},
        "times": {
          "name": "rectified_pair",
          "gap_law": {"name": "logit_normal", "mean": -0.8, "std": 1.0},
        },
        "loss": {"norm_power": 0.5, "reduction": "mean"},
      },
    ),
    "alpha_flow": Method(
      summary="from flow matching to MeanFlow, by secants that get shorter",
      paper="Zhang et al. 2025, arXiv:2510.20771",
      loss=losses.alpha_flow_loss,
      flow_map=flow_maps.average_velocity,
      teaches=True,
      needs=frozenset({"progress"}),
      config={
        "model": {"second_time": True},
        "times": _LOGIT_NORMAL_PAIR,
        "loss": {"ratio": {"name": "sigmoid"}},
      },
    ),
    "solution_flow": Method(
      summary="jump as a short step and the jump behind it do; no derivative",
      paper="Luo et al. 2025, arXiv:2512.15657",
      loss=losses.alpha_flow_loss,
      flow_map=flow_maps.average_velocity,
      teaches=True,
      needs=frozenset({"progress"}),
      config={
        "model": {"second_time": True},
        "times": {
          "name": "separate_pair",
          "t_law": {"name": "logit_normal", "mean": 0.2, "std": 0.8},
          "s_law": {"name": "logit_normal", "mean": -1.0, "std": 0.8},
          "flow_law": {"name": "logit_normal", "mean": -0.2, "std": 1.0},
        },
        "loss": {"ratio": {"name": "exponential"}, "weighting": "solution"},
      },
    ),
    "improved_mean_flow": Method(
      summary="MeanFlow as velocity regression, with guidance as an input",
      paper="Geng et al. 2025, arXiv:2512.02012",
      loss=losses.improved_mean_flow_loss,
      flow_map=flow_maps.guided_velocity,
      config={
        "model": {"second_time": True, "heads": 2, "guidance_inputs": True},
        "times": _LOGIT_NORMAL_PAIR,
        "loss": {"label_dropout": 0.1},
      },
    ),
    "pixel_mean_flow": Method(
      summary="improved MeanFlow whose heads predict the image itself",
      paper="Lu et al. 2026, arXiv:2601.22158",
      loss=losses.improved_mean_flow_loss,
      flow_map=flow_maps.guided_velocity,
      config={
        "model": {"second_time": True, "heads": 2, "guidance_inputs": True},
        "parameterization": {"name": "from_data"},
        "times": {
          "name": "sorted_pair",
          "law": {"name": "logit_normal", "mean": 0.8, "std": 0.8},
        },
        "loss": {"label_dropout": 0.1, "time_floor": 0.05},
      },
    ),
    "decoupled_mean_flow": Method(
      summary="a flow that learns to jump, each sample with both terms",
      paper="Lee, Yu, Shin 2025, arXiv:2510.24474",
      loss=losses.decoupled_mean_flow_loss,
      flow_map=flow_maps.average_velocity,
      teaches=True,
      config={
        "model": {"second_time": True},
        "times": {
          "name": "sorted_laws",
          "first_law": {"name": "logit_normal", "mean": 0.4, "std": 1.0},
          "second_law": {"name": "logit_normal", "mean": -1.2, "std": 1.0},
        },
        "loss": {
          "flow_times": {"name": "logit_normal", "mean": 0.0, "std": 1.0},
          "log_weight": {"name": "sinusoidal"},
        },
      },
    ),
    "lagrangian": Method(
      summary="the end of a jump moves, with its end time, as the flow does",
      paper="Boffi, Albergo, Vanden-Eijnden 2025, arXiv:2505.18825",
      loss=losses.lagrangian_loss,
      flow_map=flow_maps.average_velocity,
      teaches=True,
      config={
        "model": {"second_time": True},
        "times": {"name": "sorted_pair", "law": {"name": "uniform"}},
        "loss": {"flow_times": {"name": "uniform"}},
      },
    ),
    "terminal_velocity": Method(
      summary="the same with a target average and guidance as an input",
      paper="Zhou, Parger, Haque, Song 2025, arXiv:2511.19797",
      loss=losses.lagrangian_loss,
      flow_map=flow_maps.scaled_velocity,
      needs=frozenset({"target"}),
      config={
        "model": {"second_time": True, "guidance_inputs": True},
        "times": {
          "name": "gap_pair",
          "gap_law": {"name": "logit_normal", "mean": -0.8, "std": 1.0},
          "s_law": {"name": "logit_normal", "mean": -0.4, "std": 1.0},
        },
        "loss": {
          "flow_times": {"name": "logit_normal", "mean": -0.4, "std": 1.0},
          "block": (1, 1),
          "reduction": "mean",
          "omega": 2.0,
          "omega_input": True,
          "scale_output": True,
          "label_dropout": 0.1,
        },
        "flow_map": {"omega": 2.0},
        "ema": {"target": {"name": "constant", "decay": 0.99}},
      },
    ),
    "shortcut": Method(
      summary="make one step land where two of half the size land",
      paper="Frans et al. 2024, arXiv:2410.12557",
      loss=losses.shortcut_loss,
      flow_map=flow_maps.dyadic_velocity,
      teaches=True,
      needs=frozenset({"target"}),
      config={
        "model": {"second_time": True},
        "times": {"name": "dyadic_pair"},
        "loss": {"clip": 4.0},
        # A target that averages more steps than there were never learns.
        "ema": {"target": {"name": "count_ramp", "decay": 0.999}},
      },
    ),
    "consistency_distillation": Method(
      summary="map neighbours on a teacher's trajectory to one end",
      paper="Song et al. 2023, arXiv:2303.01469",
      loss=losses.consistency_loss,
      flow_map=flow_maps.average_velocity,
      sampler=_JUMPS_AND_NOISE,
      needs=frozenset({"target", "teacher"}),
      config={
        "times": {
          "name": "adjacent_pair",
          "grid": {"name": "uniform"},
          "num_points": 18,
        },
        "ema": {"target": {"name": "constant", "decay": 0.95}},
      },
    ),
    "consistency_trajectory": Method(
      summary="jump from any time to any other as a teacher's walk does",
      paper="Kim et al. 2023, arXiv:2310.02279",
      loss=losses.consistency_trajectory_loss,
      flow_map=flow_maps.trajectory,
      needs=frozenset({"target", "teacher"}),
      config={
        "path": {"name": "variance_exploding"},
        "model": {"second_time": True},
        "times": {
          "name": "trajectory",
          "grid": {"name": "karras"},
          "num_points": 18,
        },
        # A discriminator, if there is one, joins after a first stage.
        "discriminator": {"start": 0.5},
        "ema": {"target": {"name": "constant", "decay": 0.999}},
        "sample": {"grid": {"name": "karras"}},
      },
    ),
    "continuous_consistency": Method(
      summary="keep the end of every trajectory constant, in continuous time",
      paper="Lu, Song 2024, arXiv:2410.11081",
      loss=losses.continuous_consistency_loss,
      flow_map=flow_maps.trigonometric,
      sampler=_JUMPS_AND_NOISE,
      needs=frozenset({"progress"}),
      config=_ANGULAR,
    ),
    "continuous_consistency_distillation": Method(
      summary="the same along the trajectories of a teacher",
      paper="Lu, Song 2024, arXiv:2410.11081",
      loss=losses.continuous_consistency_loss,
      flow_map=flow_maps.trigonometric,
      sampler=_JUMPS_AND_NOISE,
      needs=frozenset({"teacher", "progress"}),
      config=_ANGULAR,
    ),
    # The expanded form has no velocity at s = t: its runs are no teachers.
    "flow_anchored_consistency": Method(
      summary="jump to the data, beside flow matching by the same network",
      paper="Peng et al. 2025, arXiv:2507.03738",
      loss=losses.flow_anchored_consistency_loss,
      flow_map=flow_maps.average_velocity,
      sampler=_JUMPS_AND_NOISE,
      config={
        "model": {"second_time": True},
        "times": {
          "name": "arctan_log_normal",
          "mean": -0.8,
          "std": 1.6,
          "sigma_data": 1.0,
          "scale": 2 / math.pi,
        },
      },
    ),
    "distribution_matching": Method(
      summary="move samples by the difference of two scores, theirs learned",
      paper="Yin et al. 2024, arXiv:2405.14867",
      loss=losses.distribution_matching_loss,
      flow_map=flow_maps.average_velocity,
      sampler=_JUMPS_AND_NOISE,
      needs=frozenset({"teacher"}),
      companions={"fake_score": losses.fake_score_loss},
      # Where both laws are all noise, or none, their scores say nothing.
      config={
        "times": {"name": "uniform", "t_min": 0.02, "t_max": 0.98},
        "loss": {"critic_times": {"name": "uniform"}},
        "evaluation": {"nfe": (1,)},
      },
    ),
    "f_distillation": Method(
      summary="the same, weighted by a critic's ratio of the two densities",
      paper="Xu, Nie, Vahdat 2025, arXiv:2502.15681",
      loss=losses.distribution_matching_loss,
      flow_map=flow_maps.average_velocity,
      sampler=_JUMPS_AND_NOISE,
      needs=frozenset({"teacher"}),
      companions={"fake_score": losses.fake_score_loss},
      config={
        "times": {"name": "uniform", "t_min": 0.02, "t_max": 0.98},
        "loss": {"divergence": "js", "adversarial_weight": 1e-3},
        "critic": {"network": {"name": "heads"}, "sees": "teacher"},
        "fake_score": {"loss": {"discriminator_weight": 1.0}},
        "evaluation": {"nfe": (1,)},
      },
    ),
    "twin_flow": Method(
      summary="match the flow of its own samples, itself at negative times",
      paper="Cheng, Sun, Li, Lin 2025, arXiv:2512.05150",
      loss=losses.twin_flow_loss,
      flow_map=flow_maps.average_velocity,
      teaches=True,
      needs=frozenset({"target"}),
      config={
        "model": {"second_time": True},
        "times": {"name": "truncated_pair", "law": {"name": "uniform"}},
        # Published: decay 0.99. What a jump of h teaches reaches long jumps one
        # by one, each time through the average: 0.9 is for a short training.
        "ema": {"target": {"name": "count_ramp", "decay": 0.9}},
      },
    ),
    # It goes on from a run of any row that samples in one call, whose flow map
    # is then its flow map.
    "frechet_distance_loss": Method(
      summary="train a one-call generator on the Frechet distance itself",
      paper="Yang et al. 2026, arXiv:2604.28190",
      loss=losses.frechet_distance_loss,
      flow_map=flow_maps.average_velocity,
      config={
        "model": {"second_time": True},
        "evaluation": {"nfe": (1,)},
      },
    ),
    "drifting": Method(
      summary="move samples to data and apart, until both have one law",
      paper="Deng et al. 2026, arXiv:2602.04770",
      loss=losses.drifting_loss,
      flow_map=flow_maps.generator,
      config={
        "data": {"order": "grouped"},
        "model": {"guidance_inputs": True},
        "evaluation": {"nfe": (1,)},
      },
    ),
    # Published: discriminator and generator take turns, both at 1e-4.
    "adversarial_flow": Method(
      summary="one call, by a discriminator and the optimal transport",
      paper="Lin et al. 2025, arXiv:2511.22475",
      loss=losses.adversarial_flow_loss,
      flow_map=flow_maps.average_velocity,
      needs=frozenset({"progress"}),
      config={
        "model": {"second_time": True},
        "times": {
          "name": "adjacent_pair",
          "grid": {"name": "uniform"},
          "num_points": 2,
        },
        "optimizer": {"b1": 0.0, "b2": 0.9},
        "discriminator": {
          "network": {"name": "conv", "timed": True},
          "times": {"name": "loss_pairs"},
          "loss": {"penalty": 0.25, "centre": 0.01},
          "optimizer": {
            **{"name": "adam", "learning_rate": 1e-4},
            **{"b1": 0.0, "b2": 0.9},
          },
        },
        "evaluation": {"nfe": (1,)},
      },
    ),
    "moment_matching": Method(
      summary="jumps from two near times must agree in law",
      paper="Zhou, Ermon, Song 2025, arXiv:2503.07565",
      loss=losses.moment_matching_loss,
      flow_map=flow_maps.average_velocity,
      config={
        "path": {"name": "linear", "t_min": 0.006, "t_max": 0.994},
        "model": {"second_time": True},
        "times": {"name": "truncated_pair", "law": {"name": "uniform"}},
      },
    ),
    "consistency_training": Method(
      summary="map neighbours of one noise to one end, on a growing grid",
      paper="Song et al. 2023, arXiv:2303.01469",
      loss=losses.consistency_loss,
      flow_map=flow_maps.edm_skip,
      sampler=_JUMPS_AND_NOISE,
      needs=frozenset({"target", "progress"}),
      config={
        "path": {"name": "variance_exploding", "t_min": 0.002, "t_max": 80.0},
        "times": {"name": "adaptive_pair"},
        # Published: decay 0.9 for 800,000 steps. In a short training such a
        # target lags behind the grid; 0 makes it the network itself.
        "ema": {"target": {"name": "adaptive", "decay": 0.0}},
        "sample": {"grid": {"name": "karras"}},
      },
    ),
    "improved_consistency_training": Method(
      summary="consistency training on log-normal times, without target EMA",
      paper="Song, Dhariwal 2023, arXiv:2310.14189",
      loss=losses.consistency_loss,
      flow_map=flow_maps.edm_skip,
      sampler=_JUMPS_AND_NOISE,
      needs=frozenset({"progress"}),
      config={
        "path": {"name": "variance_exploding", "t_min": 0.002, "t_max": 80.0},
        "times": {"name": "doubling_pair"},
        "loss": {
          "distance": {"name": "scaled_huber", "scale": 0.00054},
          "weight": {"name": "inverse_gap"},
        },
        "sample": {"grid": {"name": "karras"}},
      },
    ),
    "easy_consistency": Method(
      summary="turn a denoiser into a consistency model by a shrinking gap",
      paper="Geng et al. 2024, arXiv:2406.14548",
      loss=losses.consistency_loss,
      flow_map=flow_maps.edm_denoiser,
      sampler=_JUMPS_AND_NOISE,
      needs=frozenset({"progress"}),
      config={
        # Its denoiser ends at noise level 0.
        "path": {"name": "variance_exploding", "t_min": 0.0, "t_max": 80.0},
        "times": {"name": "shrinking_pair"},
        "loss": {
          "distance": {"name": "huber", "c": 0.0},
          "weight": {"name": "inverse_gap"},
        },
        "sample": {"grid": {"name": "karras"}},
      },
    ),
    "truncated_consistency": Method(
      summary="second stage of consistency: learn the noisy times alone",
      paper="Lee et al. 2024, arXiv:2410.14895",
      loss=losses.truncated_consistency_loss,
      flow_map=flow_maps.edm_denoiser,
      sampler=_JUMPS_AND_NOISE,
      needs=frozenset({"teacher"}),
      config={
        "path": {"name": "variance_exploding", "t_min": 0.0, "t_max": 80.0},
        "times": {"name": "transition_pair", "law": {"name": "log_student"}},
        "loss": {"distance": {"name": "huber", "c": 0.0}},
        # No call below the transition, where the network has learned nothing.
        "sample": {
          "grid": {
            "name": "extended",
            "grid": {"name": "karras", "t_min": 1.0},
          }
        },
      },
    ),
  }
)
