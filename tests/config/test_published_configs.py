"""Configs with published hyperparameters: their values, and that they build.

The tables are typed from the papers and the public code, row by row; they are
what the configs are held to.
"""

import ast
import functools
import pathlib

import jax
import jax.numpy as jnp
import pytest
import tiny

from jaxflow import times
from jaxflow.config import resolve
from jaxflow.config.components import complete
from jaxflow.config.files import flatten
from jaxflow.config.limits import check_limits
from jaxflow.config.presets import load_file
from jaxflow.errors import UsageError
from jaxflow.parallel import sharding
from jaxflow.runs.inputs import check_mesh

FOLDER = pathlib.Path(__file__).parents[2] / "configs"


def constant(decay):
  return {"name": "constant", "decay": decay}


def count_ramp(decay):
  return {"name": "count_ramp", "decay": decay}


# Batch, steps, optimizer, learning rate, dropout, average that is sampled.
CIFAR10 = {
  "flow_matching": (128, 1.3e6, "adam", 2e-4, 0.15, count_ramp(0.999999)),
  "denoising": (
    512,
    200e6 / 512,
    "adam",
    1e-3,
    0.13,
    {"name": "half_life", "images": 5e5, "ramp": 0.05},
  ),
  "reflow": (128, 1.3e6, "adam", 2e-4, 0.15, count_ramp(0.9999)),
  "knowledge_distillation": (
    *(128, 1.3e6, "adam", 2e-4, 0.15),
    count_ramp(0.9999),
  ),
  "annealed_reflow": (128, 1.3e6, "adam", 2e-4, 0.15, count_ramp(0.999999)),
  "slim_flow": (128, 1.3e6, "adam", 2e-4, 0.15, count_ramp(0.999999)),
  "consistency_distillation": (512, 8e5, "radam", 4e-4, 0, constant(0.9999)),
  "consistency_training": (512, 8e5, "radam", 4e-4, 0, constant(0.9999)),
  "improved_consistency_training": (
    *(1024, 4e5, "radam", 1e-4, 0.3),
    constant(0.99993),
  ),
  "easy_consistency": (128, 8 * 25e3, "radam", 1e-4, 0.2, constant(0.9999)),
  "truncated_consistency": (1024, 3e5, "radam", 5e-5, 0.2, constant(0.9999)),
  "continuous_consistency": (512, 4e5, "radam", 1e-4, 0.2, constant(0.9999)),
  "continuous_consistency_distillation": (
    *(512, 5e5, "radam", 1e-4, 0),
    constant(0.9999),
  ),
  "consistency_trajectory": (128, 5e4, "radam", 4e-4, 0, constant(0.999)),
  "mean_flow": (1024, 8e5, "adam", 6e-4, 0.2, constant(0.9999)),
  "solution_flow": (1024, 8e5, "radam", 1e-4, 0.3, constant(0.9999)),
  "lagrangian": (512, 4e5, "adam", 1e-2, 0.13, constant(0.9999)),
  # 128 rows of the network are 8 trajectories of 16 points.
  "mid_training": (128 / 16, 3e5, "radam", 2e-4, 0.2, constant(0.999)),
  "distribution_matching": (2048, 1e5, "adamw", 1e-4, 0, constant(0.9999)),
  "f_distillation": (2048, 1e5, "adamw", 1e-4, 0, constant(0.9999)),
}
# No optimizer, batch or length of it is published.
CIFAR10_ROWS = [*CIFAR10, "moment_matching"]

RECTIFIED = {
  # Half of the real images are mirrored.
  "data.flip": True,
  "optimizer.b1": 0.9,
  "optimizer.b2": 0.999,
  "optimizer.eps": 1e-8,
  "optimizer.warmup_steps": 5000,
  "optimizer.clip_norm": 1.0,
  "model.multipliers": [1, 2, 2, 2],
  "model.time_scale": 999,
}
UNIFORM = {"times.name": "uniform", "times.t_max": 1 - 1e-3}
EDM_PATH = {
  "path.name": "variance_exploding",
  "path.t_min": 0.002,
  "path.t_max": 80,
}
LPIPS = {"loss.distance.name": "lpips", "features.network.name": "vgg16"}
ANGULAR = {
  "times.name": "arctan_log_normal",
  "times.mean": -1.0,
  "times.std": 1.4,
  "times.sigma_data": 0.5,
  "path.noise_std": 0.5,
  "loss.log_weight.name": "sinusoidal",
  "loss.c": 0.1,
  "optimizer.b1": 0.9,
  "optimizer.b2": 0.99,
}
# FastGen: of Karras' 1,000 points those from number 2 to 998 are drawn.
KARRAS = times.karras_grid(1000, t_min=0.002, t_max=80.0)[::-1]
DISTRIBUTION = EDM_PATH | {
  "flow_map.name": "edm_denoiser",
  "times.name": "karras",
  "times.rho": 7.0,
  "times.last": 1.0,
  "times.t_min": pytest.approx(float(KARRAS[2]), rel=1e-4),
  "times.t_max": pytest.approx(float(KARRAS[998]), rel=1e-4),
  "loss.adversarial_weight": 1e-3,
  "loss.criterion.name": "logistic",
  "critic.network.name": "heads",
  "critic.sees": "teacher",
  # A step of the generator, four of the fake score.
  "fake_score.ratio": 5 - 1,
  "fake_score.loss.loss_space": "data",
  "fake_score.loss.weight.name": "uniform",
  "fake_score.loss.discriminator_weight": 1.0,
  "fake_score.loss.smoothness_weight": 0.0,
  **{
    f"{section}.{name}": value
    for section in ("optimizer", "fake_score.optimizer")
    for name, value in {
      "name": "adamw",
      "learning_rate": 1e-4,
      "b1": 0.9,
      "b2": 0.999,
      "weight_decay": 0.01,
    }.items()
  },
  "optimizer.clip_norm": 10.0,
  "ema.longer.decay": 0.99995,
  "ema.shorter.decay": 0.9996,
  "teacher.workdir": "runs/denoising",
}
CIFAR10_FIELDS = {
  "distribution_matching": DISTRIBUTION | {"loss.divergence": "rkl"},
  "f_distillation": DISTRIBUTION
  | {"loss.divergence": "kl", "loss.ratio_decay": 0.0},
  "flow_matching": RECTIFIED | UNIFORM,
  "reflow": RECTIFIED | UNIFORM,
  "knowledge_distillation": RECTIFIED,
  # Annealed for 300,000 of 1,300,000 steps.
  "annealed_reflow": RECTIFIED | UNIFORM | {"loss.coupling.end": 3e5 / 1.3e6},
  "slim_flow": RECTIFIED | {"times.t_min": 0.2, "times.t_max": 0.8},
  "denoising": EDM_PATH
  | {
    "times.mean": -1.2,
    "times.std": 1.2,
    "loss.sigma_data": 0.5,
    "optimizer.warmup_steps": round(10e6 / 512),
    "optimizer.eps": 1e-8,
    "sample.nfe": 35,
  },
  "consistency_distillation": EDM_PATH
  | LPIPS
  | {
    "times.num_points": 18,
    "times.grid.name": "karras",
    "flow_map.name": "edm_skip",
    "loss.solver.name": "heun",
    "loss.weight.name": "uniform",
    "ema.target.decay": 0.0,
    "optimizer.weight_decay": 0.0,
  },
  "consistency_training": EDM_PATH
  | LPIPS
  | {
    "times.start": 2,
    "times.end": 150,
    "ema.target.name": "adaptive",
    "ema.target.decay": 0.9,
    "ema.target.start": 2,
    "ema.target.end": 150,
  },
  "improved_consistency_training": EDM_PATH
  | {
    "times.start": 10,
    "times.end": 1280,
    "times.mean": -1.1,
    "times.std": 2.0,
    "loss.distance.scale": 0.00054,
    "loss.weight.name": "inverse_gap",
  },
  "easy_consistency": {
    "times.q": 2.0,
    "times.num_stages": 8,
    "times.scale": 8.0,
    "loss.distance.name": "huber",
    "loss.distance.c": 0.0,
    "loss.weight.name": "inverse_gap",
    "init.workdir": "runs/denoising",
  },
  "truncated_consistency": {
    "times.law.name": "log_student",
    "times.law.mean": 0.0,
    "times.law.std": 0.2,
    "times.law.df": 0.01,
    # The largest ratio is 0.999.
    "times.gap": 1e-3,
    "loss.transition": 1.0,
    # A quarter of the rows is at the transition.
    "loss.block": [4, 1],
    "loss.boundary_weight": 0.1,
    "loss.distance.name": "huber",
    "loss.distance.c": 0.0,
    "loss.weight.name": "inverse_gap",
    "optimizer.weight_decay": 0.0,
    "teacher.workdir": "runs/easy_consistency",
  },
  # The tangent's warm-up takes 10,000 steps.
  "continuous_consistency": ANGULAR | {"loss.warmup": 10e3 / 400e3},
  "continuous_consistency_distillation": ANGULAR
  | {"loss.warmup": 10e3 / 500e3},
  "consistency_trajectory": EDM_PATH
  | LPIPS
  | {
    "features.network.resize": 224,
    "times.num_points": 18,
    "loss.solver.name": "heun",
    "loss.sigma_data": 0.5,
    "ema.target.decay": 0.999,
    "ema.longer.decay": 0.9999,
    "ema.longest.decay": 0.9999432,
    "discriminator.optimizer.name": "radam",
    "discriminator.optimizer.learning_rate": 2e-3,
    "discriminator.optimizer.b1": 0.5,
    "discriminator.optimizer.b2": 0.9,
  },
  "mean_flow": {
    "times.t_law.mean": -0.6,
    "times.t_law.std": 1.6,
    "times.s_law.mean": -4.0,
    "times.s_law.std": 1.6,
    # A quarter of the rows has s = t.
    "loss.block": [4, 3],
    "loss.norm_power": 0.75,
    "loss.norm_eps": 1e-3,
    "optimizer.warmup_steps": round(200 * 50_000 / 1024),
  },
  "solution_flow": {
    "times.t_law.mean": -0.9,
    "times.t_law.std": 1.6,
    "times.s_law.mean": -4.0,
    "times.s_law.std": 1.6,
    "times.gap": 1e-4,
    # Every row has s < t.
    "loss.block": [1, 1],
    "loss.norm_power": 0.75,
    "loss.norm_eps": 1e-3,
    "loss.weighting": "solution",
    "loss.ratio.name": "exponential",
    "loss.ratio.start": 1.0,
    "loss.ratio.end": 1 / 3200,
  },
  "lagrangian": {
    # Of EDM2, in place of that of all other rows.
    "model.name": "mp_unet",
    "loss.block": [4, 1],
    "loss.reduction": "sum",
    "loss.log_weight.name": "sinusoidal",
    "loss.log_weight.channels": 128,
    "optimizer.clip_norm": 1.0,
    "times.law.name": "uniform",
    "loss.flow_times.name": "uniform",
    "ema.shorter.decay": 0.999,
  },
  "moment_matching": {
    "path.t_min": 0.006,
    "path.t_max": 0.994,
    "path.noise_std": 0.5,
    "parameterization.name": "normalized",
    "flow_map.name": "rotation",
    "loss.halvings": 15,
    "loss.weight_power": 1.0,
    "loss.weight_shift": 5.0,
    "loss.group_size": 4,
    "model.dropout": 0.2,
  },
  "mid_training": EDM_PATH
  | LPIPS
  | {
    "loss.num_steps": 16,
    "loss.order": 3,
    "loss.grid.name": "log",
    "optimizer.schedule": "linear",
  },
}

# Where the pairs of a row lie.
PAIRS = {
  "reflow": "runs/pairs",
  "annealed_reflow": "runs/pairs",
  "knowledge_distillation": "runs/reflow_pairs",
  "slim_flow": "runs/annealed_pairs",
}

# Batch, steps, beta 2, weight decay, average that is sampled.
LATENTS = {
  "flow_matching": (256, 7e6, 0.999, 0.0, constant(0.9999)),
  "mean_flow-B/4": (256, 1.2e6, 0.95, 0.0, constant(0.9999)),
  "mean_flow-XL/2": (1024, 1.2e6 / 4, 0.95, 0.0, constant(0.9999)),
  "improved_mean_flow-B/2": (1024, 8e5, 0.95, 0.0, constant(0.9999)),
  "alpha_flow-B/2": (256, 4e5, 0.95, 0.0, constant(0.9999)),
  "alpha_flow-XL/2": (256, 1.2e6, 0.95, 0.0, constant(0.9999)),
  "solution_flow-B/4": (256, 4e5, 0.99, 0.0, constant(0.9999)),
  "shortcut": (256, 8.1e5, 0.999, 0.1, None),
}
IMPROVED = {
  "model.head_depth": 8,
  "model.heads": 2,
  "loss.block": [2, 1],
  "loss.omega_max": 8.0,
  "optimizer.warmup_steps": round(10 * 1_281_167 / 1024),
}
LATENT_FIELDS = {
  "flow_matching": {"sample.guidance": 1.5, "times.name": "uniform"},
  "mean_flow-B/4": {
    "loss.omega": 1.0,
    "loss.kappa": 0.5,
    "loss.guidance_start": 0.0,
    "loss.guidance_end": 1.0,
    "loss.norm_eps": 0.01,
    "loss.norm_power": 1.0,
    "loss.block": [4, 1],
    "times.law.mean": -0.4,
    "times.law.std": 1.0,
    "model.depth": 12,
    "model.width": 768,
    "model.num_heads": 12,
    "model.patch_size": 4,
  },
  "mean_flow-XL/2": {
    "loss.omega": 0.2,
    "loss.kappa": 0.92,
    "loss.guidance_end": 0.75,
    "loss.norm_eps": 1.0,
    "model.depth": 28,
    "model.width": 1152,
    "model.num_heads": 16,
    "model.patch_size": 2,
  },
  "alpha_flow-B/2": {
    "loss.omega": 1.0,
    "loss.kappa": 0.5,
    "loss.clip": 4.0,
    # A quarter of the rows has s = t.
    "loss.block": [4, 3],
    "loss.ratio.name": "sigmoid",
    "loss.ratio.gamma": 25.0,
    "loss.ratio.clamp": 0.005,
    "loss.ratio.start": 0.0,
    "loss.ratio.end": 1.0,
  },
  "alpha_flow-XL/2": {
    "loss.omega": 0.2,
    "loss.kappa": 0.92,
    "loss.guidance_end": 0.75,
    "loss.block": [2, 1],
    # Steps 600,000 to 1,000,000.
    "loss.ratio.start": 0.6 / 1.2,
    "loss.ratio.end": 1 / 1.2,
  },
  "solution_flow-B/4": {
    # A mix ratio of 0.25, and a scale of 3.
    "loss.omega": 0.25 * 3,
    "loss.kappa": 1 - 0.25,
    "loss.decay_start": 0.8,
    "loss.block": [4, 1],
    "loss.norm_power": 1.0,
    "loss.norm_eps": 0.01,
    "loss.ratio.start": 0.1,
    "loss.ratio.end": 0.002,
    "times.flow_law.mean": -0.2,
    "times.flow_law.std": 1.0,
    "times.t_law.mean": 0.2,
    "times.t_law.std": 0.8,
    "times.s_law.mean": -1.0,
    "times.s_law.std": 0.8,
  },
  "mean_flow-M/2": {"model.depth": 16, "model.width": 1024},
  "mean_flow-L/2": {"model.depth": 24, "model.width": 1024},
  "improved_mean_flow-B/2": IMPROVED
  | {
    "model.depth": 12,
    "model.width": 768,
    "flow_map.omega": 8.0,
    "flow_map.t_start": 0.4,
    "flow_map.t_end": 0.65,
  },
  "improved_mean_flow-M/2": IMPROVED
  | {"model.depth": 24, "model.width": 768, "flow_map.omega": 10.5},
  "improved_mean_flow-L/2": IMPROVED
  | {"model.depth": 32, "model.width": 1024, "flow_map.t_end": 0.6},
  "improved_mean_flow": IMPROVED
  | {
    "model.depth": 48,
    "model.width": 1024,
    "model.num_heads": 16,
    "flow_map.omega": 8.0,
    "flow_map.t_start": 0.42,
    "flow_map.t_end": 0.62,
  },
  "shortcut": {
    "loss.num_steps": 128,
    "loss.block": [8, 1],
    "loss.omega": 1.5,
    "loss.clip": 4.0,
    "ema.target.decay": 0.999,
    "sample.ema": "online",
  },
  "adversarial_flow": {
    "train.batch_size": 256,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 1e-4,
    "optimizer.b1": 0.0,
    "optimizer.b2": 0.9,
    "optimizer.weight_decay": 0.01,
    "discriminator.optimizer.name": "adamw",
    "discriminator.optimizer.learning_rate": 1e-4,
    "discriminator.optimizer.b1": 0.0,
    "discriminator.optimizer.b2": 0.9,
    "discriminator.optimizer.weight_decay": 0.01,
    "discriminator.turns": "alternate",
    "discriminator.start": 0.0,
    "discriminator.times.name": "loss_pairs",
    # g, e and the share of rows of R1 and R2; the centre.
    "discriminator.loss.penalty": 0.25,
    "discriminator.loss.penalty_step": 0.01,
    "discriminator.loss.penalty_block": [4, 1],
    "discriminator.loss.centre": 0.01,
    "loss.criterion.name": "relativistic",
    "loss.transport_weight": 0.2,
    "loss.transport_end": 0.005,
    "times.name": "adjacent_pair",
    "times.num_points": 2,
    "ema.sampling.decay": 0.9999,
  },
  "terminal_velocity": {
    "train.batch_size": 2048,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 1e-4,
    "optimizer.b2": 0.95,
    "optimizer.weight_decay": 0.0,
    "ema.sampling.decay": 0.9999,
    "ema.target.decay": 0.99,
    "loss.omega": 2.0,
    "loss.omega_input": True,
    "loss.scale_output": True,
    "loss.label_dropout": 0.1,
    "loss.reduction": "mean",
    "loss.block": [1, 1],
    "loss.flow_times.mean": -0.4,
    "loss.flow_times.std": 1.0,
    "times.gap_law.mean": -0.8,
    "times.gap_law.std": 1.0,
    "times.s_law.mean": -0.4,
    "times.s_law.std": 1.0,
    "flow_map.omega": 2.0,
    "model.depth": 28,
    "model.width": 1152,
    "model.num_heads": 18,
    "model.patch_size": 2,
    "model.norm": "rms",
    "model.qk_norm": True,
    "model.dtype": "bfloat16",
  },
  "decoupled_mean_flow": {
    "init.workdir": "runs/flow_matching",
    "train.batch_size": 256,
    "train.steps": 400_000,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 1e-4,
    "optimizer.b1": 0.9,
    "optimizer.b2": 0.95,
    "optimizer.weight_decay": 0.0,
    "optimizer.clip_norm": 1.0,
    "ema.sampling.decay": 0.9999,
    "times.name": "sorted_laws",
    "times.first_law.mean": 0.4,
    "times.first_law.std": 1.0,
    "times.second_law.mean": -1.2,
    "times.second_law.std": 1.0,
    "loss.flow_times.mean": 0.0,
    "loss.flow_times.std": 1.0,
    "loss.norm_eps": 0.01,
    "loss.kappa": 0.6,
    "loss.guidance_start": 0.0,
    "loss.guidance_end": 0.7,
    "model.depth": 28,
    "model.second_time_from": 20,
    "model.dtype": "bfloat16",
  },
  # The readme: two thirds of the depth.
  "decoupled_mean_flow-B/2": {"model.second_time_from": 12 * 2 / 3},
  "decoupled_mean_flow-L/2": {"model.second_time_from": 24 * 2 / 3},
  "moment_matching": {
    "path.t_min": 0.0,
    "path.t_max": 0.994,
    "path.noise_std": 0.5,
    "flow_map.name": "average_velocity",
    "loss.halvings": 12,
    "loss.weight_power": 2.0,
    "loss.weight_shift": 4.0,
    "loss.group_size": 4,
    "sample.nfe": 8,
    "sample.guidance": 1.5,
  },
  # The features that the published temperatures are for are not public here.
  "drifting": {
    "train.batch_size": 128,
    "train.steps": 200_000,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 4e-4,
    "optimizer.warmup_steps": 10_000,
    "optimizer.b1": 0.9,
    "optimizer.b2": 0.95,
    "optimizer.weight_decay": 0.01,
    "optimizer.clip_norm": 2.0,
    "ema.sampling.decay": 0.999,
    "data.order": "grouped",
    # 128 classes, of each 64 samples and 64 data from a memory of 128.
    "loss.group": 1,
    "loss.group_samples": 64,
    "loss.positives": 64,
    "loss.kept_positives": 128,
    "loss.negatives": 32,
    "loss.kept_negatives": 1000,
    "loss.omega_max": 4.0,
    "loss.omega_power": 3.0,
    "loss.unguided": 0.5,
    "model.noise_labels": 32,
    "model.noise_classes": 64,
    "flow_map.omega": 1.0,
    "evaluation.nfe": [1],
  },
}
LATENT_ROWS = [
  *("flow_matching", "mean_flow", "improved_mean_flow", "shortcut"),
  *("moment_matching", "alpha_flow", "solution_flow", "terminal_velocity"),
  *("adversarial_flow", "drifting", "decoupled_mean_flow"),
]


@functools.cache
def load(file, name):
  config = load_file(f"{FOLDER / file}.py:{name}")
  complete(config)
  return config


def assert_fields(config, expected):
  values = flatten(config.to_dict())
  assert {field: values[field] for field in expected} == expected


def test_the_tables_list_every_row():
  for file, rows, fields in (
    ("cifar10", CIFAR10_ROWS, CIFAR10_FIELDS),
    ("imagenet256_latent", LATENT_ROWS, LATENT_FIELDS),
  ):
    with pytest.raises(UsageError) as error:
      load(file, "nothing")
    choices = str(error.value).split("choose one of ")[1]
    assert set(choices.split(", ")) == set(rows)
    assert {name.partition("-")[0] for name in fields} == set(rows)


@pytest.mark.parametrize("method", CIFAR10)
def test_cifar10_trains_as_published(method):
  config = load("cifar10", method)
  batch, steps, name, rate, dropout, average = CIFAR10[method]
  assert_fields(
    config,
    {
      "train.batch_size": batch,
      "train.steps": steps,
      "optimizer.name": name,
      "optimizer.learning_rate": rate,
      "model.dropout": dropout,
      **{f"ema.sampling.{k}": v for k, v in average.items()},
    },
  )


@pytest.mark.parametrize("method", CIFAR10_ROWS)
def test_cifar10_has_the_published_fields(method):
  network = {
    "model.name": "unet",
    "model.channels": 128,
    "model.multipliers": [2, 2, 2],
    "model.num_blocks": 4,
    "model.attention_resolutions": [16],
    "data.name": "cifar10",
    "data.shape": [32, 32, 3],
  }
  assert_fields(load("cifar10", method), network | CIFAR10_FIELDS[method])


def commands_of(file, name):
  """Return the flags of a docstring's `jaxflow NAME` commands."""
  text = ast.get_docstring(ast.parse((FOLDER / f"{file}.py").read_text()))
  lines = text.replace("\\\n", " ").splitlines()
  found = [x.split()[2:] for x in lines if x.startswith(f"  jaxflow {name} ")]
  return [dict(x[2:].split("=") for x in flags if "=" in x) for flags in found]


def test_pairs_are_made_by_the_network_that_a_row_begins_with():
  configs = {method: load("cifar10", method) for method in CIFAR10_ROWS}
  places = {k: x.data.pairs for k, x in configs.items() if "pairs" in x.data}
  assert places == PAIRS
  makers = {x["out"]: x["workdir"] for x in commands_of("cifar10", "pairs")}
  assert set(makers) == set(PAIRS.values())
  for method, place in PAIRS.items():
    config = configs[method]
    sources = [config.get(name, {}) for name in ("teacher", "init")]
    sources = {source.get("workdir", "") for source in sources} - {""}
    assert sources <= {makers[place]}
    # What makes pairs is a row itself.
    assert pathlib.Path(makers[place]).name in configs
  assert configs["slim_flow"].teacher.workdir == "runs/annealed_reflow"


@pytest.mark.parametrize("name", LATENT_ROWS)
def test_latents_are_encoded_where_a_row_looks_for_them(name):
  config = load("imagenet256_latent", name)
  scales = {
    x["out"]: float(x.get("scale", 1))
    for x in commands_of("imagenet256_latent", "encode")
  }
  scale = scales[config.data.data_dir]
  assert scale == (0.5 if name == "moment_matching" else 1.0)
  if config.parameterization.name == "normalized":
    assert scale == config.path.noise_std


@pytest.mark.parametrize("name", LATENTS)
def test_latents_train_as_published(name):
  batch, steps, b2, decay, average = LATENTS[name]
  expected = {
    "train.batch_size": batch,
    "train.steps": steps,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 1e-4,
    "optimizer.schedule": "constant",
    "optimizer.b1": 0.9,
    "optimizer.b2": b2,
    "optimizer.weight_decay": decay,
    "model.dropout": 0.0,
    "model.dtype": "float32",
  }
  if average:
    expected |= {f"ema.sampling.{k}": v for k, v in average.items()}
  assert_fields(load("imagenet256_latent", name), expected)


@pytest.mark.parametrize("name", LATENT_FIELDS)
def test_latents_have_the_published_fields(name):
  common = {
    "data.name": "latents",
    "data.shape": [32, 32, 4],
    "data.num_classes": 1000,
    "model.scan_layers": True,
  }
  # A discriminator that knows the labels, or negatives, stand in place of the
  # guidance that needs a null label.
  if name not in ("adversarial_flow", "drifting"):
    common["loss.label_dropout"] = 0.1
  config = load("imagenet256_latent", name)
  assert_fields(config, common | LATENT_FIELDS[name])


def test_a_method_alone_is_the_largest_size():
  for method in LATENT_ROWS:
    named = load("imagenet256_latent", f"{method}-XL/2")
    assert load("imagenet256_latent", method).to_dict() == named.to_dict()


@pytest.mark.parametrize("name", ["mean_flow-XXL/2", "mean_flow-B"])
def test_a_wrong_size_is_named(name):
  with pytest.raises(
    UsageError, match=r"^size=.*choose one of .*XL/2"
  ) as error:
    load("imagenet256_latent", name)
  assert "\n" not in str(error.value)


def resolved(config):
  teacher = None
  if "teacher" in config and config.teacher.workdir:
    source = pathlib.Path(config.teacher.workdir).name
    teacher = shrunk(load("cifar10", source))
    teacher = resolve(teacher, shape=(32, 32, 3), num_classes=0, teacher=None)
  return resolve(
    config,
    shape=config.data.shape,
    num_classes=config.data.num_classes,
    teacher=teacher,
  )


def shrunk(config):
  """Return the config with a network that is traced in no time."""
  config = type(config)(config.to_dict())
  kept = ("second_time", "heads", "guidance_inputs")
  kept = {k: v for k, v in config.model.items() if k in kept}
  with config.unlocked(), config.ignore_type():
    config.model = {"name": "mlp", "width": 8, "depth": 1, **kept}
    if config.get("features", {}).get("network", {}).get("name") == "vgg16":
      config.features.network.file = "vgg16.pth"
  return config


def shapes_of_batch(config):
  size = (1, 1, config.train.batch_size)
  sample = jax.ShapeDtypeStruct((*size, *config.data.shape), jnp.float32)
  batch = {"data": sample}
  if "pairs" in config.data:
    batch["noise"] = sample
  if config.data.num_classes:
    batch["cond"] = jax.ShapeDtypeStruct(size, jnp.int32)
  return batch


@pytest.mark.parametrize(
  ("file", "method"),
  [("cifar10", method) for method in CIFAR10_ROWS]
  + [("imagenet256_latent", method) for method in LATENT_ROWS],
)
def test_a_step_and_the_samplers_can_be_made(file, method):
  """Of a small network, on batches of the published size."""
  config = resolved(shrunk(load(file, method)))
  check_limits(config)
  run = tiny.run_of(config)
  check_mesh(run.plan, sharding.make_mesh())
  state = run.template(sharding.make_mesh())
  after, metrics = jax.eval_shape(
    run.train_step(), state, shapes_of_batch(config)
  )
  assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
  assert metrics["loss"].shape == ()
  for nfe in {config.sample.nfe, *config.evaluation.nfe}:
    run.make_sampler(nfe)


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def state_of(file, name):
  return tiny.run_of(resolved(load(file, name))).template(sharding.make_mesh())


@pytest.mark.parametrize(
  ("file", "name", "millions"),
  [
    ("imagenet256_latent", "mean_flow-XL/2", 676.4),
    ("imagenet256_latent", "mean_flow-B/4", 131.2),
    ("imagenet256_latent", "shortcut", 676.4),
    # Of training: the published 89.0 and 610.4 are without the second head.
    ("imagenet256_latent", "improved_mean_flow-B/2", 145.6),
    ("imagenet256_latent", "improved_mean_flow-XL/2", 711.1),
    ("imagenet256_latent", "moment_matching", 676.4),
    # EDM's 55.7 without augmentation labels.
    ("cifar10", "denoising", 55.7),
  ],
)
def test_the_state_has_the_published_size(file, name, millions):
  state = state_of(file, name)
  assert round(count(state.params) / 1e6, 1) == millions
  # Weights, an average or more and two moments.
  averages = 2 if name == "shortcut" else 1
  expected = (3 + averages) * count(state.params)
  assert count(state) == pytest.approx(expected, abs=100)


@pytest.mark.parametrize("size", ["B/2", "XL/2"])
def test_improved_mean_flow_shares_all_but_eight_blocks(size):
  name = f"improved_mean_flow-{size}"
  config = load("imagenet256_latent", name)
  params = state_of("imagenet256_latent", name).params
  heads = [params["blocks"], params["head_1"]["blocks"]]
  depths = [head["stacked"]["expand"]["kernel"].shape[0] for head in heads]
  assert depths == [config.model.depth, 8]


def test_one_time_needs_one_embedding():
  # An embedding: 256 waves to the width, and a square matrix.
  width = 1152
  embedding = (256 + 1) * width + (width + 1) * width
  counts = [
    count(
      jax.eval_shape(
        tiny.run_of(load("imagenet256_latent", name)).model.network.init,
        jax.random.key(0),
      )
    )
    for name in ("flow_matching", "shortcut")
  ]
  assert counts[1] - counts[0] == embedding
