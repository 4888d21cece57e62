"""Losses whose steps are counted: every method, and forms of some."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from experiments.training_cost.published import (
  LABEL_DROPOUT,
  LINEAR,
  PAIRS,
  published_central_differences,
  published_improved_mean_flow,
  published_mean_flow,
  published_secant,
)
from jaxflow import (
  flow_maps,
  guidance,
  losses,
  paths,
  predictions,
  solvers,
  times,
  weights,
)
from jaxflow.losses.frechet_distance import filled_moments
from jaxflow.methods import METHODS
from jaxflow.times import curricula, dyadic

BASELINE = "flow_matching"
ANGULAR = paths.Trigonometric(t_max=math.pi / 2, noise_std=0.5)
# The networks that a loss takes, by what its row of METHODS needs.
FROZEN = {"target": "target_fn", "teacher": "teacher"}


def variants(num_classes: int) -> dict[str, Callable]:
  """Return the losses by name; the first word is the row of METHODS.

  Args:
    num_classes: The null label.

  Returns:
    Functions `(model_fn, key, batch, **roles) -> (loss [B], metrics)`, which
    take the frozen networks that their rows need.
  """
  labels = {"null_cond": num_classes, "label_dropout": LABEL_DROPOUT}
  mean_flow = functools.partial(
    losses.mean_flow_loss, path=LINEAR, sample_times=PAIRS, **labels
  )
  distillation = functools.partial(
    losses.consistency_loss,
    path=LINEAR,
    sample_times=times.AdjacentPair(grid=times.uniform_grid, num_points=18),
    flow_map=flow_maps.average_velocity,
  )
  continuous = functools.partial(
    losses.continuous_consistency_loss,
    path=ANGULAR,
    sample_times=times.ArctanLogNormal(mean=-1.0, std=1.4),
  )
  lagrangian = functools.partial(losses.lagrangian_loss, path=LINEAR, **labels)
  moments = functools.partial(
    losses.moment_matching_loss,
    path=paths.Linear(t_min=0.006, t_max=0.994),
    flow_map=flow_maps.average_velocity,
    sample_times=times.TruncatedPair(
      law=times.Uniform(), t_min=0.006, t_max=0.994
    ),
    **labels,
  )
  training = functools.partial(
    losses.consistency_loss,
    path=paths.VarianceExploding(),
    progress=jnp.asarray(0.5),
  )
  flow_matching = functools.partial(
    losses.flow_matching_loss,
    path=LINEAR,
    sample_times=times.Uniform(),
    **labels,
  )

  twin_flow = functools.partial(
    losses.twin_flow_loss,
    path=LINEAR,
    sample_times=times.TruncatedPair(law=times.Uniform(), t_min=0.0, t_max=1.0),
    **labels,
  )

  # Groups of half a batch; a class has no other row there.
  drifting = functools.partial(losses.drifting_loss, path=LINEAR, group=8)
  # The critic of ratios is one that costs nothing, as below.
  matching = functools.partial(
    losses.distribution_matching_loss,
    path=LINEAR,
    sample_times=times.Uniform(),
    flow_map=flow_maps.average_velocity,
  )

  def guided_matching(model_fn, key, batch, *, teacher, fake_score):
    return matching(
      model_fn,
      key,
      batch,
      fake_score=fake_score,
      teacher=guidance.classifier_free(
        teacher, scale=1.5, null_cond=num_classes
      ),
    )

  def fake_step(model_fn, key, batch, *, teacher, fake_score):
    del teacher
    # What is trained is the fake score; the frozen network is the generator.
    return losses.fake_score_loss(
      model_fn,
      key,
      batch,
      path=LINEAR,
      sample_times=times.Uniform(),
      generator=flow_maps.average_velocity(fake_score),
    )

  # The discriminator is one that costs nothing: it is no network of the row.
  adversarial_flow = functools.partial(
    losses.adversarial_flow_loss,
    path=LINEAR,
    sample_times=times.AdjacentPair(grid=times.uniform_grid, num_points=2),
    flow_map=flow_maps.average_velocity,
    discriminator=lambda x, cond, s: weights.sample_mean(x),
    progress=jnp.asarray(0.5),
  )

  def frechet(model_fn, key, batch):
    # Features that cost nothing: they are no network of the row.
    zero, one = jnp.zeros(4), jnp.eye(4)
    return losses.frechet_distance_loss(
      model_fn,
      key,
      batch,
      path=LINEAR,
      flow_map=flow_maps.average_velocity,
      moments=filled_moments([(zero, one)], [(zero, one)]),
      features=lambda x: (x,),
    )[:2]

  def guided_teacher(model_fn, key, batch, *, target_fn, teacher):
    return distillation(
      model_fn,
      key,
      batch,
      solver=solvers.heun,
      target_fn=target_fn,
      teacher=guidance.classifier_free(
        teacher, scale=1.5, null_cond=num_classes
      ),
    )

  def truncated_consistency(model_fn, key, batch, *, teacher):
    return losses.truncated_consistency_loss(
      model_fn,
      key,
      batch,
      path=paths.VarianceExploding(t_min=0.0),
      sample_times=times.TransitionPair(),
      flow_map=flow_maps.edm_denoiser,
      teacher=flow_maps.edm_denoiser(teacher),
      distance=weights.huber(0.0),
    )

  def paired(key, batch):
    return batch | {"noise": jax.random.normal(key, batch["data"].shape)}

  def one_step(model_fn, key, batch):
    return losses.distillation_loss(
      model_fn,
      key,
      paired(key, batch),
      path=LINEAR,
      flow_map=flow_maps.average_velocity,
    )

  def guidance_distillation(model_fn, key, batch, *, teacher):
    # A teacher has no guidance inputs: it is told a constant.
    return losses.guidance_distillation_loss(
      model_fn,
      key,
      batch,
      path=LINEAR,
      sample_times=times.Uniform(),
      teacher=guidance.fix_guidance(teacher, omega=1.0),
      null_cond=num_classes,
    )

  def slim_flow(model_fn, key, batch, *, teacher):
    return losses.flow_guided_distillation_loss(
      model_fn,
      key,
      paired(key, batch),
      path=LINEAR,
      sample_times=times.Uniform(t_min=0.2, t_max=0.8),
      teacher=teacher,
    )

  improved = functools.partial(
    losses.improved_mean_flow_loss,
    path=LINEAR,
    sample_times=PAIRS,
    **labels,
  )

  def pixel_mean_flow(model_fn, key, batch):
    model_fn = predictions.from_data(model_fn, path=LINEAR)
    return improved(model_fn, key, batch, time_floor=0.05)

  published = functools.partial(published_mean_flow, num_classes=num_classes)
  secant = functools.partial(published_secant, num_classes=num_classes)
  return {
    "flow_matching": flow_matching,
    "denoising": functools.partial(
      losses.denoising_loss,
      path=paths.VarianceExploding(),
      sample_times=times.LogNormal(mean=-1.2, std=1.2),
      **labels,
    ),
    "score_matching": functools.partial(
      losses.flow_matching_loss,
      path=paths.VarianceExploding(t_min=0.05, t_max=3.0),
      sample_times=times.Uniform(t_min=0.05, t_max=3.0),
      prediction="score",
      weight=weights.inverse_square,
      **labels,
    ),
    "reflow": flow_matching,
    "knowledge_distillation": one_step,
    "insta_flow": one_step,
    "annealed_reflow": flow_matching,
    "slim_flow": slim_flow,
    "progressive_distillation": functools.partial(
      losses.progressive_distillation_loss,
      path=LINEAR,
      sample_times=times.AdjacentTriple(grid=times.uniform_grid, num_steps=8),
      weight=weights.inverse_square,
      **labels,
    ),
    # The teacher's steps are a scan, of which XLA counts one.
    "mid_training": functools.partial(
      losses.mid_training_loss,
      path=paths.VarianceExploding(),
      flow_map=flow_maps.edm_denoiser,
      grid=functools.partial(times.log_grid, t_min=0.002, t_max=80.0),
    ),
    "guidance_distillation": guidance_distillation,
    "mean_flow": mean_flow,
    "mean_flow, omega 2, kappa 0": functools.partial(mean_flow, omega=2.0),
    "mean_flow, omega 1, kappa 0.5": functools.partial(mean_flow, kappa=0.5),
    "mean_flow, central differences": functools.partial(
      mean_flow, derivative="central"
    ),
    "mean_flow_distillation": mean_flow,
    "rectified_mean_flow": mean_flow,
    "alpha_flow": functools.partial(
      losses.alpha_flow_loss,
      path=LINEAR,
      sample_times=PAIRS,
      ratio=times.SigmoidRatio(),
      progress=jnp.asarray(0.5),
      **labels,
    ),
    "solution_flow": functools.partial(
      losses.alpha_flow_loss,
      path=LINEAR,
      sample_times=PAIRS,
      ratio=times.ExponentialRatio(),
      weighting="solution",
      progress=jnp.asarray(0.5),
      **labels,
    ),
    "consistency_distillation, euler": functools.partial(
      distillation, solver=solvers.euler
    ),
    "consistency_distillation, heun": functools.partial(
      distillation, solver=solvers.heun
    ),
    "consistency_distillation, heun, guided teacher": guided_teacher,
    "consistency_trajectory, 1 Heun step": functools.partial(
      losses.consistency_trajectory_loss,
      path=paths.VarianceExploding(),
      sample_times=times.TrajectoryTimes(
        grid=times.karras_grid, num_points=18, solver_steps=1
      ),
    ),
    "continuous_consistency": continuous,
    "continuous_consistency_distillation": continuous,
    "moment_matching": moments,
    "consistency_training": functools.partial(
      training,
      sample_times=curricula.AdaptivePair(),
      flow_map=flow_maps.edm_skip,
    ),
    "improved_consistency_training": functools.partial(
      training,
      sample_times=curricula.DoublingPair(),
      flow_map=flow_maps.edm_skip,
      distance=weights.scaled_huber(),
      weight=weights.inverse_gap,
    ),
    "easy_consistency": functools.partial(
      training,
      sample_times=curricula.ShrinkingPair(),
      flow_map=flow_maps.edm_denoiser,
      distance=weights.huber(0.0),
      weight=weights.inverse_gap,
    ),
    "truncated_consistency": truncated_consistency,
    "improved_mean_flow": improved,
    "pixel_mean_flow": pixel_mean_flow,
    "decoupled_mean_flow": functools.partial(
      losses.decoupled_mean_flow_loss,
      path=LINEAR,
      sample_times=PAIRS,
      flow_times=times.Uniform(),
      **labels,
    ),
    "lagrangian": functools.partial(
      lagrangian,
      sample_times=times.SortedPair(law=times.Uniform()),
      flow_times=times.Uniform(),
    ),
    "terminal_velocity": functools.partial(
      lagrangian,
      sample_times=times.GapPair(
        gap_law=times.LogitNormal(mean=-0.8, std=1.0),
        s_law=times.LogitNormal(mean=-0.4, std=1.0),
      ),
      flow_times=times.LogitNormal(mean=-0.4, std=1.0),
      block=(1, 1),
      reduction="mean",
      omega=2.0,
      omega_input=True,
      scale_output=True,
    ),
    "flow_anchored_consistency": functools.partial(
      losses.flow_anchored_consistency_loss,
      path=LINEAR,
      sample_times=times.ArctanLogNormal(
        mean=-0.8, std=1.6, sigma_data=1.0, scale=2 / math.pi
      ),
      **labels,
    ),
    "distribution_matching": matching,
    "distribution_matching, guided teacher": guided_matching,
    "distribution_matching, step of the fake score": fake_step,
    "f_distillation": functools.partial(
      matching,
      critic=lambda xt, t, cond: weights.sample_mean(xt),
      adversarial_weight=1e-3,
      divergence="js",
      bins=jnp.ones(10),
    ),
    "twin_flow": twin_flow,
    "twin_flow, one row of four": functools.partial(twin_flow, block=(4, 1)),
    "twin_flow, base alone": functools.partial(twin_flow, twin=False),
    "drifting": drifting,
    "drifting, three temperatures": functools.partial(
      drifting, temperatures=(0.02, 0.05, 0.2)
    ),
    "adversarial_flow": adversarial_flow,
    "frechet_distance_loss": frechet,
    "shortcut": functools.partial(
      losses.shortcut_loss,
      path=LINEAR,
      sample_times=dyadic.DyadicPair(num_steps=4),
      num_steps=4,
      **labels,
    ),
    "published mean_flow": published,
    "published mean_flow, omega 2, kappa 0": functools.partial(
      published, omega=2.0
    ),
    "published mean_flow, omega 1, kappa 0.5": functools.partial(
      published, kappa=0.5
    ),
    "published mean_flow, gradient through du/dt": functools.partial(
      published, stop_tangent=False
    ),
    "published mean_flow, central differences": functools.partial(
      published_central_differences, num_classes=num_classes
    ),
    "published alpha_flow": secant,
    "published solution_flow": secant,
    "published improved_mean_flow": functools.partial(
      published_improved_mean_flow, num_classes=num_classes
    ),
  }


def roles_of(name: str) -> list[str]:
  """Return the frozen networks that a variant takes.

  Args:
    name: A key of `variants`.
  """
  row = METHODS.get(name.split(",")[0])
  if row is None:
    return []
  found = [FROZEN[k] for k in FROZEN if k in row.needs]
  return found + [k for k in row.companions if k == "fake_score"]


def network_options(name: str, depth: int) -> dict:
  """Return what the network of a variant has beyond the others'.

  Args:
    name: A key of `variants`.
    depth: Number of blocks.
  """
  row = METHODS.get(name.split(",")[0].removeprefix("published "))
  options = dict(row.config.get("model", {})) if row else {}
  options.pop("second_time", None)  # All have one.
  if "heads" in options:
    # Published: 8 of 12 blocks belong to a head.
    options["head_depth"] = max(1, round(2 * depth / 3))
  return options
