r"""CIFAR-10: 50,000 images of 32x32 pixels, with the published hyperparameters.

  jaxflow train --config=configs/cifar10.py:METHOD --workdir=runs/METHOD

Not trained here: a row takes 4e18 to 1e20 floating-point operations, half a
day to a week of 8 large GPUs. The network is the DDPM++ U-Net, 56 or 62 million
parameters, without labels (--config.data.conditional=True gives them). What the
authors report, FID-50k with one call, or two behind the stroke:

  flow_matching              2.58 with an adaptive solver (readme), Euler 378
  denoising                  1.97 with 35 calls (paper)
  reflow, then knowledge_distillation   4.85 (readme)
  annealed_reflow, then slim_flow       5.02 (paper; with a smaller network)
  consistency_distillation   3.55 / 2.93 (paper)
  consistency_training       8.70 / 5.83 (paper)
  improved_consistency_training         2.83 / 2.46 (unverified)
  easy_consistency           3.86 / 2.15 (readme)
  truncated_consistency      2.23 (third party), behind easy_consistency
  continuous_consistency     2.85 / 2.06 (unverified / paper)
  continuous_consistency_distillation   3.66 / 2.52 (unverified)
  consistency_trajectory     1.98 / 1.87 (paper; with its GAN stage)
  mean_flow                  2.80 (readme; 2.92 in the paper)
  solution_flow              2.86 / 2.28 (readme)
  moment_matching            3.20 / 1.98 (third party / paper)
  mid_training               2.74 / 1.97 with easy_consistency behind (readme)
  distribution_matching      1.99, with labels (readme of FastGen; 2.13 paper)
  f_distillation             1.85, with labels (readme of FastGen; 1.92 paper)

Values come from public code. From memory, unverified, are those of
improved_consistency_training and of the two continuous rows, and a, b, k of
moment_matching, whose optimizer, batch and length are not published: they are
ours, as is the decay of the average of solution_flow. The smaller networks of
slim_flow are left to you, in annealed_reflow too (--config.model.channels).

Where this project differs from the authors:

- No augmentation: denoising and mean_flow have a non-leaky one, 12 %. Rows of
  rectified flow mirror half of the real images, as published, but no pairs.
- One network for all: papers on consistency models take NCSN++, for
  improved_consistency_training a deeper one; c_noise is ln(t) / 4.
- consistency_trajectory is its first stage. The second, at least 30,000 steps,
  has a discriminator: --config.discriminator.network.name.
- mid_training takes 8 trajectories of 16 points a step, 128 rows.
- distribution_matching and f_distillation are FastGen's, published with labels;
  their critic sees other layers of the teacher here, and gradients of the fake
  score are clipped as the generator's are. Of five steps four are the fake
  score's; samples of f_distillation are weighed by kl, js elsewhere.
- lagrangian has EDM2's U-Net and its learning rate, as published; the rate
  falls as a cosine, there as the inverse root of the steps after 35,000. No FID
  of it is public.

Rows begin with runs of other rows in runs/. Pairs for reflow and
annealed_reflow, for knowledge_distillation, and for slim_flow:

  jaxflow pairs --workdir=runs/flow_matching --num=1000000 --nfe=100 \
    --out=runs/pairs
  jaxflow pairs --workdir=runs/reflow --num=1000000 --nfe=100 \
    --out=runs/reflow_pairs
  jaxflow pairs --workdir=runs/annealed_reflow --num=1000000 --nfe=100 \
    --out=runs/annealed_pairs

LPIPS reads two local files, nothing is downloaded:

  --config.features.network.file=vgg16-397923af.pth \
  --config.loss.distance.file=vgg.pth

Two calls use a published time if the file says so, for instance
"sample": {"nfe": 2, "grid": {"name": "given", "values": (80.0, 0.821, 0.002)}}
for improved_consistency_training and easy_consistency; 0.776 for mid_training,
the angle 1.1 for the continuous rows.
"""

from jaxflow.config import Config, default_config, update
from jaxflow.config.registry import choose

_RECTIFIED = {
  "data": {"flip": True},
  # 999 t, as published networks of the linear path see their time.
  "model": {"multipliers": (1, 2, 2, 2), "dropout": 0.15, "time_scale": 999.0},
  "times": {"name": "uniform", "t_max": 0.999},
  "optimizer": {"learning_rate": 2e-4, "warmup_steps": 5000, "clip_norm": 1.0},
  "train": {"steps": 1_300_000, "batch_size": 128},
  "ema": {"sampling": {"name": "count_ramp", "decay": 0.999999}},
  "sample": {"nfe": 100},
  "evaluation": {"nfe": (1, 100)},
}
_REFLOW = {
  **_RECTIFIED,
  "ema": {"sampling": {"name": "count_ramp", "decay": 0.9999}},
  "data": {**_RECTIFIED["data"], "pairs": "runs/pairs"},
}
_ONE_CALL = {"sample": {"nfe": 1}, "evaluation": {"nfe": (1,)}}
_KARRAS_PATH = {"name": "variance_exploding", "t_min": 0.002, "t_max": 80.0}
_LPIPS = {
  "loss": {"distance": {"name": "lpips"}},
  "features": {"network": {"name": "vgg16", "resize": 224}},
}
_FROM_DENOISER = {"init": {"workdir": "runs/denoising"}}
_DENOISING_TEACHER = {"teacher": {"workdir": "runs/denoising"}}
_ANGULAR = {
  "parameterization": {"name": "trigonometric_from_edm"},
  "optimizer": {"name": "radam", "learning_rate": 1e-4, "b2": 0.99},
  "ema": {"sampling": {"name": "constant", "decay": 0.9999}},
}

_ADAMW = {
  "name": "adamw",
  "learning_rate": 1e-4,
  "weight_decay": 0.01,
  "clip_norm": 10.0,
}
_DISTRIBUTION = {
  "path": _KARRAS_PATH,
  "flow_map": {"name": "edm_denoiser"},
  # Between the points 2 and 998 of Karras' grid, whose ends are 0 and 999.
  "times": {"name": "karras", "t_min": 0.0021015, "t_max": 79.564},
  "loss": {"adversarial_weight": 1e-3},
  "critic": {"network": {"name": "heads"}, "sees": "teacher"},
  "optimizer": _ADAMW,
  "fake_score": {
    "loss": {"loss_space": "data", "discriminator_weight": 1.0},
    "optimizer": _ADAMW,
  },
  "train": {"steps": 100_000, "batch_size": 2048},
  "ema": {
    "sampling": {"name": "constant", "decay": 0.9999},
    "longer": {"name": "constant", "decay": 0.99995},
    "shorter": {"name": "constant", "decay": 0.9996},
  },
  **_DENOISING_TEACHER,
}

METHOD_FIELDS = {
  "flow_matching": _RECTIFIED,
  "denoising": {
    "model": {"dropout": 0.13},
    # 10 of 200 million images.
    "optimizer": {"learning_rate": 1e-3, "warmup_steps": 19_531},
    "train": {"steps": 390_625, "batch_size": 512},
    "ema": {"sampling": {"name": "half_life", "images": 5e5, "ramp": 0.05}},
    "sample": {
      "nfe": 35,
      "sampler": {"name": "edm_heun"},
      "grid": {"name": "extended", "grid": {"name": "karras"}},
    },
    "evaluation": {"nfe": (35,)},
  },
  "reflow": {**_REFLOW, "init": {"workdir": "runs/flow_matching"}},
  "knowledge_distillation": {
    **{k: v for k, v in _REFLOW.items() if k != "times"},
    "data": {**_REFLOW["data"], "pairs": "runs/reflow_pairs"},
    "init": {"workdir": "runs/reflow"},
    **_ONE_CALL,
  },
  "annealed_reflow": {
    **_RECTIFIED,
    "data": _REFLOW["data"],
    # 300,000 steps.
    "loss": {"coupling": {"name": "annealed", "end": 3 / 13}},
  },
  "slim_flow": {
    **{k: v for k, v in _RECTIFIED.items() if k != "times"},
    "data": {**_RECTIFIED["data"], "pairs": "runs/annealed_pairs"},
    "teacher": {"workdir": "runs/annealed_reflow"},
    **_ONE_CALL,
  },
  "consistency_distillation": {
    "path": _KARRAS_PATH,
    "flow_map": {"name": "edm_skip"},
    "times": {
      "name": "adjacent_pair",
      "grid": {"name": "karras"},
      "num_points": 18,
    },
    "optimizer": {"name": "radam", "learning_rate": 4e-4},
    "train": {"steps": 800_000, "batch_size": 512},
    "ema": {
      "sampling": {"name": "constant", "decay": 0.9999},
      "target": {"name": "constant", "decay": 0.0},
    },
    "sample": {"grid": {"name": "karras"}},
    **_LPIPS,
    **_DENOISING_TEACHER,
  },
  "consistency_training": {
    "times": {"name": "adaptive_pair", "start": 2, "end": 150},
    "optimizer": {"name": "radam", "learning_rate": 4e-4},
    "train": {"steps": 800_000, "batch_size": 512},
    "ema": {
      "sampling": {"name": "constant", "decay": 0.9999},
      "target": {"name": "adaptive", "decay": 0.9, "start": 2, "end": 150},
    },
    **_LPIPS,
  },
  "improved_consistency_training": {
    "model": {"dropout": 0.3},
    "times": {"name": "doubling_pair", "start": 10, "end": 1280},
    "optimizer": {"name": "radam", "learning_rate": 1e-4},
    "train": {"steps": 400_000, "batch_size": 1024},
    "ema": {"sampling": {"name": "constant", "decay": 0.99993}},
  },
  "easy_consistency": {
    "model": {"dropout": 0.2},
    "times": {"name": "shrinking_pair", "q": 2.0, "num_stages": 8},
    "optimizer": {"name": "radam", "learning_rate": 1e-4},
    "train": {"steps": 200_000, "batch_size": 128},
    "ema": {"sampling": {"name": "constant", "decay": 0.9999}},
    **_FROM_DENOISER,
  },
  # 1 - ratio is at its published limit.
  "truncated_consistency": {
    "model": {"dropout": 0.2},
    "times": {
      "law": {"name": "log_student", "mean": 0.0, "std": 0.2, "df": 0.01},
      "gap": 0.001,
    },
    "optimizer": {"name": "radam", "learning_rate": 5e-5},
    "train": {"steps": 300_000, "batch_size": 1024},
    "ema": {
      "sampling": {"name": "constant", "decay": 0.9999},
      "longer": {"name": "constant", "decay": 0.99995},
      "shorter": {"name": "constant", "decay": 0.9996},
    },
    "teacher": {"workdir": "runs/easy_consistency"},
  },
  "continuous_consistency": {
    **_ANGULAR,
    "model": {"dropout": 0.2},
    # 10,000 steps of warm-up.
    "loss": {"warmup": 0.025},
    "train": {"steps": 400_000, "batch_size": 512},
    **_FROM_DENOISER,
  },
  "continuous_consistency_distillation": {
    **_ANGULAR,
    "loss": {"warmup": 0.02},
    "train": {"steps": 500_000, "batch_size": 512},
    **_DENOISING_TEACHER,
  },
  "consistency_trajectory": {
    "optimizer": {"name": "radam", "learning_rate": 4e-4},
    "train": {"steps": 50_000, "batch_size": 128},
    "ema": {
      "sampling": {"name": "constant", "decay": 0.999},
      "longer": {"name": "constant", "decay": 0.9999},
      "longest": {"name": "constant", "decay": 0.9999432},
      "target": {"name": "constant", "decay": 0.999},
    },
    **_LPIPS,
    **_FROM_DENOISER,
    **_DENOISING_TEACHER,
  },
  "mean_flow": {
    "model": {"dropout": 0.2},
    "times": {
      "name": "limited_pair",
      "t_law": {"name": "logit_normal", "mean": -0.6, "std": 1.6},
      "s_law": {"name": "logit_normal", "mean": -4.0, "std": 1.6},
    },
    "loss": {"block": (4, 3), "norm_power": 0.75, "norm_eps": 1e-3},
    # 200 epochs.
    "optimizer": {"learning_rate": 6e-4, "warmup_steps": 9766},
    "train": {"steps": 800_000, "batch_size": 1024},
    "ema": {"sampling": {"name": "constant", "decay": 0.9999}},
  },
  # No flow rows; the shortest step is 1 / 3200 of the interval.
  "solution_flow": {
    "model": {"dropout": 0.3},
    "times": {
      "t_law": {"name": "logit_normal", "mean": -0.9, "std": 1.6},
      "s_law": {"name": "logit_normal", "mean": -4.0, "std": 1.6},
    },
    "loss": {
      "block": (1, 1),
      "norm_power": 0.75,
      "norm_eps": 1e-3,
      "ratio": {"start": 1.0, "end": 1 / 3200},
    },
    "optimizer": {"name": "radam", "learning_rate": 1e-4},
    "train": {"steps": 800_000, "batch_size": 1024},
    "ema": {"sampling": {"name": "constant", "decay": 0.9999}},
  },
  "lagrangian": {
    "model": {"dropout": 0.13},
    "loss": {"log_weight": {"name": "sinusoidal"}},
    "optimizer": {
      "learning_rate": 1e-2,
      "schedule": "cosine",
      "clip_norm": 1.0,
    },
    "train": {"steps": 400_000, "batch_size": 512},
    "ema": {
      "sampling": {"name": "constant", "decay": 0.9999},
      "shorter": {"name": "constant", "decay": 0.999},
    },
  },
  "moment_matching": {
    "model": {"dropout": 0.2},
    "path": {
      "name": "linear",
      "t_min": 0.006,
      "t_max": 0.994,
      "noise_std": 0.5,
    },
    "parameterization": {"name": "normalized"},
    "flow_map": {"name": "rotation"},
    "loss": {"halvings": 15, "weight_power": 1.0, "weight_shift": 5.0},
    "ema": {"sampling": {"name": "constant", "decay": 0.9999}},
    "train": {"steps": 400_000, "batch_size": 512},
    # Noise of 1.4 times the data's weight between the two calls.
    "sample": {
      "nfe": 2,
      "grid": {"name": "given", "values": (0.994, 1.4 / 2.4, 0.006)},
    },
    "evaluation": {"nfe": (2,)},
  },
  "mid_training": {
    "model": {"dropout": 0.2},
    "optimizer": {
      "name": "radam",
      "learning_rate": 2e-4,
      "schedule": "linear",
    },
    "train": {"steps": 300_000, "batch_size": 8},
    "ema": {"sampling": {"name": "constant", "decay": 0.999}},
    **_LPIPS,
    **_DENOISING_TEACHER,
  },
  "distribution_matching": _DISTRIBUTION,
  "f_distillation": {
    **_DISTRIBUTION,
    "loss": {
      "adversarial_weight": 1e-3,
      "divergence": "kl",
      "ratio_decay": 0.0,
    },
  },
}


# Rows with another network than DDPM++, and what it has for these images.
_NETWORKS = {
  "lagrangian": (
    "mp_unet",
    {
      "multipliers": (2, 2, 2),
      "num_blocks": 4,
      "attention_resolutions": (16,),
    },
  ),
}


def get_config(method: str) -> Config:
  """Return the published config of a method on CIFAR-10."""
  fields = choose("method", method, METHOD_FIELDS)
  network, options = _NETWORKS.get(method, ("unet", {}))
  config = default_config(method, data="cifar10", model=network)
  config.model.update(options)
  config.data.update(conditional=False, shape=(32, 32, 3), num_classes=0)
  config.train.update(log_every=500, sample_every=10_000)
  config.checkpoint.every = 10_000
  update(config, fields)
  return config
