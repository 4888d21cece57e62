r"""A ring of 8 Gaussians in the plane: radius 1, standard deviation 0.1.

  jaxflow train --config=configs/ring.py:METHOD --workdir=runs/METHOD

15 to 20 s each on 2 CPU cores. Sliced Wasserstein distance to held-out points,
where as many real training points score 0.073 +- 0.006:

  flow_matching             20 calls 0.056
  mean_flow                  1 call  0.074, 4 calls 0.069
  consistency_distillation   1 call  0.059, 4 calls 0.058

A row that needs a teacher takes it from --config.teacher.workdir, by default
runs/flow_matching, one that needs pairs from runs/pairs:

  jaxflow pairs --workdir=runs/flow_matching --num=16384 --out=runs/pairs

Guidance distillation needs a teacher with labels,

  jaxflow train --config=configs/ring.py:flow_matching \
    --config.data.conditional=True --config.loss.label_dropout=0.1 \
    --workdir=runs/flow_matching_labelled
"""

from jaxflow.config import Config, default_config, update

# Standard deviation of the points.
SIGMA_DATA = 0.7

_FLOW_TEACHER = {"teacher": {"workdir": "runs/flow_matching"}}
# The network predicts something else than its teacher's: it starts afresh.
_NEW_STUDENT = {
  "teacher": {"workdir": "runs/flow_matching", "init_student": False}
}
_PAIRS = {"data": {"pairs": "runs/pairs"}}
_RECTIFIED = {
  "optimizer": {"learning_rate": 5e-4},
  "init": {"workdir": "runs/flow_matching"},
  **_PAIRS,
}
_ANGULAR = {
  "path": {"noise_std": SIGMA_DATA},
  "times": {"sigma_data": SIGMA_DATA},
}
_PRECONDITIONED = {"flow_map": {"sigma_data": SIGMA_DATA}}

# A generator moves no faster than the fake score that follows it.
_DISTRIBUTION = {
  "optimizer": {"learning_rate": 5e-4},
  "fake_score": {"optimizer": {"learning_rate": 5e-4}},
  **_FLOW_TEACHER,
}

METHOD_FIELDS = {
  "denoising": {
    "loss": {"sigma_data": SIGMA_DATA},
    "sample": {"nfe": 36},
  },
  "mean_flow": {
    "times": {"name": "sorted_pair", "law": {"name": "uniform"}},
    "loss": {"block": (2, 1), "norm_power": 0.5},
  },
  "mean_flow_distillation": {
    "times": {"name": "sorted_pair", "law": {"name": "uniform"}},
    "loss": {"block": (2, 1), "norm_power": 0.5},
    **_FLOW_TEACHER,
  },
  "rectified_mean_flow": {"loss": {"block": (2, 1)}, **_PAIRS},
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
  # The points have no labels here.
  "improved_mean_flow": {"loss": {"label_dropout": 0.0, "norm_power": 0.5}},
  "pixel_mean_flow": {
    "times": {"name": "sorted_pair", "law": {"name": "uniform"}},
    "loss": {"label_dropout": 0.0, "norm_power": 0.5},
  },
  "decoupled_mean_flow": {
    "times": {"name": "sorted_pair", "law": {"name": "uniform"}},
    "loss": {"flow_times": {"name": "uniform"}},
  },
  "lagrangian": {"loss": {"block": (2, 1)}},
  "distribution_matching": _DISTRIBUTION,
  "f_distillation": _DISTRIBUTION,
  "twin_flow": {"loss": {"block": (4, 1)}},
  "frechet_distance_loss": {
    "init": {"workdir": "runs/mean_flow"},
    "train": {"steps": 1000},
    "optimizer": {"learning_rate": 1e-5},
    "loss": {"decay": 0.95, "fill": 8192},
  },
  # One law, of which every group has some points.
  "drifting": {
    "data": {"order": "shuffled"},
    "loss": {"group": 64},
  },
  # Both players learn in every step, and the law of the points comes first.
  "adversarial_flow": {
    "loss": {"transport_weight": 0.05},
    "discriminator": {
      "network": {"name": "conv", "width": 128, "timed": True},
      "turns": "joint",
      "optimizer": {"learning_rate": 4e-3, "schedule": "cosine"},
    },
  },
  "terminal_velocity": {"loss": {"label_dropout": 0.0}},
  "consistency_distillation": {
    "optimizer": {"learning_rate": 5e-4},
    **_FLOW_TEACHER,
  },
  "consistency_trajectory": {
    "loss": {"sigma_data": SIGMA_DATA},
    **_PRECONDITIONED,
    **_NEW_STUDENT,
  },
  "reflow": _RECTIFIED,
  "annealed_reflow": _RECTIFIED,
  "knowledge_distillation": _RECTIFIED,
  "insta_flow": _RECTIFIED,
  "slim_flow": {
    "optimizer": {"learning_rate": 5e-4},
    **_FLOW_TEACHER,
    **_PAIRS,
  },
  "consistency_training": _PRECONDITIONED,
  "improved_consistency_training": _PRECONDITIONED,
  "easy_consistency": _PRECONDITIONED,
  "truncated_consistency": {
    "optimizer": {"learning_rate": 5e-4},
    "teacher": {"workdir": "runs/easy_consistency"},
    **_PRECONDITIONED,
  },
  "continuous_consistency": _ANGULAR,
  "continuous_consistency_distillation": {**_ANGULAR, **_NEW_STUDENT},
  "mid_training": {
    "loss": {"num_steps": 8},
    "train": {"batch_size": 64},
    **_PRECONDITIONED,
    **_NEW_STUDENT,
  },
  "progressive_distillation": {
    "optimizer": {"learning_rate": 5e-4},
    **_FLOW_TEACHER,
  },
  # Guidance acts on labels: of this row the points have some.
  "guidance_distillation": {
    "data": {"conditional": True},
    "teacher": {"workdir": "runs/flow_matching_labelled"},
  },
}


def get_config(method: str) -> Config:
  """Return the config of a method on the ring."""
  config = default_config(method, data="ring", model="mlp")
  config.data.conditional = False
  config.model.update(width=128, depth=3)
  config.optimizer.update(learning_rate=2e-3, schedule="cosine")
  config.train.update(steps=4000, batch_size=512, log_every=500)
  config.train.steps_per_dispatch = 100
  config.checkpoint.every = 1000
  update(config, METHOD_FIELDS.get(method, {}))
  return config
