r"""Handwritten digits: 1,797 real 8x8 images of 10 classes, from scikit-learn.

  jaxflow train --config=configs/digits.py:METHOD --workdir=runs/METHOD

Half a minute to two minutes each on 2 CPU cores. Share of samples that a
classifier of real digits recognises (of real held-out digits: 98.1 %), and
sliced Wasserstein distance to held-out digits (as many real training digits:
0.043):

  flow_matching             50 calls 97.4 %, 0.049
  mean_flow                  1 call  96.9 %, 0.048
  consistency_distillation   1 call  99.4 %, 0.053

experiments/leaderboard compares all rows after equal training. What a row
starts from are runs of `flow_matching` or `denoising` in runs/, and pairs:

  jaxflow pairs --workdir=runs/flow_matching --num=4096 --nfe=16 \
    --guidance=1.3 --out=runs/pairs

`make demo` trains the three above.
"""

from jaxflow.config import Config, default_config, update

# Standard deviation of the pixels, which are in [-1, 1].
SIGMA_DATA = 0.75

_FROM_FLOW = {"init": {"workdir": "runs/flow_matching"}}
_FROM_DENOISER = {"init": {"workdir": "runs/denoising"}}
_FLOW_TEACHER = {"workdir": "runs/flow_matching", "guidance": 1.3}
_PAIRS = {"data": {"pairs": "runs/pairs"}}
_DENOISING_TEACHER = {"workdir": "runs/denoising", "guidance": 1.3}
# A network of the linear path, with unit noise, as one in angles.
_ANGULAR = {
  "parameterization": {"name": "trigonometric_from_linear"},
  "path": {"noise_std": 1.0},
  "times": {"sigma_data": 1.0},
  "optimizer": {"learning_rate": 1e-3},
}
_PRECONDITIONED = {"flow_map": {"sigma_data": SIGMA_DATA}}

# A generator moves no faster than the fake score that follows it.
_DISTRIBUTION = {
  "train": {"steps": 1000},
  "optimizer": {"learning_rate": 5e-4},
  "fake_score": {"optimizer": {"learning_rate": 5e-4}},
  "teacher": _FLOW_TEACHER,
}

METHOD_FIELDS = {
  "flow_matching": {
    "train": {"steps": 1200},
    "optimizer": {"learning_rate": 8e-3},
    # The null label is for the guidance of the teacher.
    "loss": {"label_dropout": 0.1},
  },
  "denoising": {
    "loss": {"label_dropout": 0.1, "sigma_data": SIGMA_DATA},
    # One call a step: few-step samplers of all methods compare.
    "flow_map": {"solver": {"name": "euler"}},
    "sample": {"nfe": 18},
    "evaluation": {"nfe": (18,)},
  },
  "score_matching": {
    # 1 / t^2, the default, is for data on which small noise matters most.
    "loss": {"weight": {"name": "uniform"}},
    "path": {"name": "variance_exploding", "t_min": 0.05, "t_max": 10.0},
    "sample": {"nfe": 18, "grid": {"name": "karras"}},
    "evaluation": {"nfe": (18,)},
  },
  "mean_flow": {
    "train": {"steps": 1400},
    "optimizer": {"learning_rate": 3e-3},
    # Uniform times, more interval rows and a milder weight than published: the
    # small network has to learn the long jumps in minutes.
    "times": {"name": "sorted_pair", "law": {"name": "uniform"}},
    "loss": {"block": (2, 1), "norm_power": 0.5},
  },
  "mean_flow_distillation": {
    "train": {"steps": 800},
    "times": {"name": "sorted_pair", "law": {"name": "uniform"}},
    "loss": {"block": (2, 1), "norm_power": 0.5},
    "teacher": _FLOW_TEACHER,
  },
  "rectified_mean_flow": {
    "train": {"steps": 1600},
    "loss": {"block": (2, 1)},
    **_PAIRS,
  },
  "alpha_flow": {
    "times": {"name": "sorted_pair", "law": {"name": "uniform"}},
    "loss": {"block": (2, 1), "norm_power": 0.5},
  },
  "solution_flow": {
    "times": {
      "t_law": {"name": "uniform"},
      "s_law": {"name": "uniform"},
      "flow_law": {"name": "uniform"},
    },
    "loss": {"block": (2, 1), "norm_power": 0.5},
  },
  "improved_mean_flow": {
    "times": {"name": "sorted_pair", "law": {"name": "uniform"}},
    "loss": {"norm_power": 0.5, "omega_max": 3.0},
    "flow_map": {"omega": 1.3},
  },
  "pixel_mean_flow": {
    "times": {"name": "sorted_pair", "law": {"name": "uniform"}},
    "loss": {"norm_power": 0.5, "omega_max": 3.0},
    "flow_map": {"omega": 1.3},
  },
  # The flow goes on with its last block told where to jump.
  "decoupled_mean_flow": {
    "train": {"steps": 800},
    "model": {"second_time_from": 1},
    "optimizer": {"learning_rate": 1e-3},
    "loss": {"label_dropout": 0.1, "flow_times": {"name": "uniform"}},
    "times": {"name": "sorted_pair", "law": {"name": "uniform"}},
    **_FROM_FLOW,
  },
  "lagrangian": {"loss": {"block": (2, 1)}},
  "terminal_velocity": {
    "train": {"steps": 800},
    "loss": {"omega": 1.3},
    "flow_map": {"omega": 1.3},
  },
  "flow_anchored_consistency": {"train": {"steps": 1000}},
  "distribution_matching": _DISTRIBUTION,
  "f_distillation": _DISTRIBUTION,
  "twin_flow": {"train": {"steps": 1000}, "loss": {"block": (4, 1)}},
  # Post-training, in random features.
  "frechet_distance_loss": {
    "init": {"workdir": "runs/mean_flow"},
    "features": {"network": {"name": "conv"}},
    "train": {"steps": 400},
    "optimizer": {"learning_rate": 1e-5},
    "loss": {"decay": 0.95, "fill": 7680},
  },
  # Eight of the ten digits in a batch.
  "drifting": {"loss": {"group": 16, "temperatures": (0.2,)}},
  "adversarial_flow": {
    "optimizer": {"learning_rate": 2e-3},
    "loss": {"transport_weight": 0.05},
    "discriminator": {
      "network": {"name": "conv", "width": 16, "depth": 2, "timed": True},
      "turns": "joint",
      "optimizer": {"learning_rate": 1e-3, "schedule": "cosine"},
    },
  },
  "consistency_distillation": {
    "train": {"steps": 350},
    "optimizer": {"learning_rate": 1e-3},
    "teacher": _FLOW_TEACHER,
  },
  "consistency_trajectory": {
    "train": {"steps": 600},
    "optimizer": {"learning_rate": 1e-3},
    "loss": {"sigma_data": SIGMA_DATA},
    "teacher": _DENOISING_TEACHER,
    # Walks of any length cost a step up to 34 teacher calls, and 0.999 is for a
    # training a hundred times as long.
    "times": {"solver_steps": 1},
    "ema": {"target": {"name": "constant", "decay": 0.95}},
    **_FROM_DENOISER,
    **_PRECONDITIONED,
  },
  # Unweighted, what is learnt near the data does not reach the noise in
  # minutes.
  "consistency_training": {
    "times": {"end": 30},
    "loss": {"weight": {"name": "inverse_gap"}},
    **_PRECONDITIONED,
  },
  "improved_consistency_training": _PRECONDITIONED,
  "easy_consistency": {
    "train": {"steps": 800},
    "optimizer": {"learning_rate": 1e-3},
    **_FROM_DENOISER,
    **_PRECONDITIONED,
  },
  "truncated_consistency": {
    "train": {"steps": 800},
    "optimizer": {"learning_rate": 1e-3},
    "teacher": {"workdir": "runs/easy_consistency"},
    **_PRECONDITIONED,
  },
  "continuous_consistency": {
    "train": {"steps": 800},
    **_ANGULAR,
    **_FROM_FLOW,
  },
  "continuous_consistency_distillation": {
    "train": {"steps": 800},
    **_ANGULAR,
    "teacher": _FLOW_TEACHER,
  },
  "mid_training": {
    "train": {"steps": 600, "batch_size": 32},
    "optimizer": {"learning_rate": 1e-3},
    "loss": {"num_steps": 8},
    "teacher": _DENOISING_TEACHER,
    **_PRECONDITIONED,
  },
  "reflow": {
    "train": {"steps": 800},
    "optimizer": {"learning_rate": 1e-3},
    **_FROM_FLOW,
    **_PAIRS,
  },
  "annealed_reflow": {
    "train": {"steps": 800},
    "optimizer": {"learning_rate": 1e-3},
    **_FROM_FLOW,
    **_PAIRS,
  },
  "knowledge_distillation": {
    "train": {"steps": 800},
    "optimizer": {"learning_rate": 1e-3},
    **_FROM_FLOW,
    **_PAIRS,
  },
  # As released: pixels and features, here of the teacher; no discriminator.
  "insta_flow": {
    "train": {"steps": 800},
    "optimizer": {"learning_rate": 1e-3},
    "loss": {"perceptual": {"name": "lpips"}, "perceptual_weight": 0.1},
    "features": {"network": {"name": "run"}, "workdir": "runs/flow_matching"},
    **_FROM_FLOW,
    **_PAIRS,
  },
  "slim_flow": {
    "train": {"steps": 800},
    "optimizer": {"learning_rate": 1e-3},
    "teacher": _FLOW_TEACHER,
    **_PAIRS,
  },
  "progressive_distillation": {
    "train": {"steps": 600},
    "optimizer": {"learning_rate": 1e-3},
    "teacher": _FLOW_TEACHER,
  },
  "guidance_distillation": {
    "loss": {"omega_max": 3.0},
    "teacher": {"workdir": "runs/flow_matching"},
    "flow_map": {"omega": 1.3},
    "sample": {"nfe": 8},
    "evaluation": {"nfe": (4, 8)},
  },
}


def get_config(method: str) -> Config:
  """Return the config of a method on the digits."""
  config = default_config(method, data="digits", model="dit")
  # Four tokens: at equal time a wide network of few tokens learns more. Two
  # blocks are too few for a loop.
  config.model.update(
    depth=2, width=96, num_heads=2, patch_size=4, scan_layers=False
  )
  config.optimizer.update(
    learning_rate=4e-3, b2=0.99, schedule="cosine", warmup_steps=100
  )
  config.train.update(
    steps=1600, batch_size=128, log_every=250, sample_every=500
  )
  config.checkpoint.every = 500
  # As many samples as there are training digits, for an equal floor.
  config.evaluation.num = 1437
  config.evaluation.network = {"name": "classifier"}
  config.evaluation.flow.levels = 17
  update(config, METHOD_FIELDS.get(method, {}))
  return config
