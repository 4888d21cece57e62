r"""ImageNet at 256x256 pixels, as latents of 32x32x4 numbers of an autoencoder.

  jaxflow encode --data=imagenet2012 --flip --autoencoder=PATH \
    --out=runs/latents
  jaxflow train --config=configs/imagenet256_latent.py:METHOD-SIZE/PATCH \
    --workdir=runs/METHOD

moment_matching stands on latents of deviation 0.5, in a folder of their own:

  jaxflow encode --data=imagenet2012 --flip --autoencoder=PATH --scale=0.5 \
    --out=runs/half_latents

METHOD alone is METHOD-XL/2, the size of the published scores. SIZE is S, B, M,
L or XL, PATCH 2 or 4; improved_mean_flow has deeper sizes of its own, from B.
Not trained here: mean_flow-XL/2 takes 3e20 floating-point operations, a week or
two of 8 GPUs with 80 GB. What the authors report for XL/2, FID-50k:

  flow_matching        2.15 with guidance 1.5 (SiT; its 2.06 is of an SDE)
  mean_flow            3.19 with 1 call (readme of FastGen)
  alpha_flow           2.58 with 1 call, 2.15 with 2 (paper)
  solution_flow        2.96 with 1 call, 2.66 with 2 (readme)
  improved_mean_flow   1.70 with 1 call, 1.53 with 2 (readme)
  shortcut             10.6 with 1 call, 7.8 with 4, 3.8 with 128 (readme)
  moment_matching      1.99 with 8 calls (paper)
  terminal_velocity    3.29 with 1 call; 1.99 with 4 and omega 1.75 (readme)
  adversarial_flow     2.38 with 1 call (survey)
  drifting             1.53 with 1 call (readme, L/2; B/2: 1.74)
  decoupled_mean_flow  2.16 with 1 call, 1.51 with more (readme)

Values come from public code. mean_flow-XL/2 is FastGen's: batch 1024, omega
0.2, kappa 0.92, t <= 0.75, eps 1, here for the 240 epochs of the paper, whose
own XL/2 has 3.43 with 1 call and 2.93 with 2; all other sizes are as published
for B/4: batch 256, omega 1, kappa 0.5. alpha_flow has the published schedule of
B/2, at XL that of XL/2; its time law and eps are not public: they are
mean_flow's. solution_flow has the 80 epochs of the code; the score is of more.
All sizes of improved_mean_flow train as
long as its B/2; the two calls of its XL/2 are --config.flow_map.omega=4.0,
--config.flow_map.t_start=0.36, --config.flow_map.t_end=0.64. Optimizer, batch
and length of moment_matching are not published: they are ours, and so is the
length of terminal_velocity. Its omega is set twice, --config.loss.omega and
--config.flow_map.omega. The transport term of adversarial_flow decays over a
million steps, its length here; its discriminator was published as another XL/2,
and is convolutional here. drifting-L/2 is the published size; there samples are
compared through a masked autoencoder, with temperatures 0.02, 0.05 and 0.2,
here as they are, with 0.5; --config.features.network.name=run with a flow as
--config.features.workdir compares features. decoupled_mean_flow goes on from a
flow of its size, runs/flow_matching, published as SiT-XL/2 with REPA; in sizes
other than XL two thirds of the blocks see t, as its readme advises.

Where this project differs from the authors:

- Latents are normalised by channel, as published for improved_mean_flow and
  moment_matching, with mean (.86488, -.27787343, .21616915, .3738409) and
  deviation (4.85503674, 5.31922414, 3.93725398, 3.9870003); `jaxflow encode`
  measures its own. flow_matching (SiT), mean_flow, decoupled_mean_flow and
  shortcut were published on latents times 0.18215, of about the same deviation,
  0.72 to 0.97.
Scanned and recomputed blocks (`model.scan_layers`, `model.remat`) give the same
numbers in less memory. All compute in float32, as published, but
terminal_velocity and decoupled_mean_flow, in bfloat16; --config.model.dtype
sets it. Latents are those of sd-vae-ft-mse or -ema.
"""

from jaxflow.config import Config, default_config, update
from jaxflow.config.registry import choose
from jaxflow.models import SIZES

# Hidden units are 8 / 3 of the width.
_NARROW = {"width": 768, "num_heads": 12, "mlp_width": 2048}
_WIDE = {"width": 1024, "num_heads": 16, "mlp_width": 2730}
_IMPROVED_SIZES = {
  "B": {"depth": 12, **_NARROW},
  "M": {"depth": 24, **_NARROW},
  "L": {"depth": 32, **_WIDE},
  "XL": {"depth": 48, **_WIDE},
}
_SIZES = {name: size for name, size in SIZES.items() if name != "tiny"}
_PATCHES = (2, 4)

_ADAMW = {"name": "adamw", "learning_rate": 1e-4}
_EMA = {"sampling": {"name": "constant", "decay": 0.9999}}

METHOD_FIELDS = {
  "flow_matching": {
    "loss": {"label_dropout": 0.1},
    "optimizer": _ADAMW,
    # 1400 epochs.
    "train": {"steps": 7_000_000, "batch_size": 256},
    "ema": _EMA,
    "sample": {"nfe": 250, "guidance": 1.5},
    "evaluation": {"nfe": (250,)},
  },
  "mean_flow": {
    "loss": {"label_dropout": 0.1, "omega": 1.0, "kappa": 0.5},
    "optimizer": {**_ADAMW, "b2": 0.95},
    "train": {"steps": 1_200_000, "batch_size": 256},
    "ema": _EMA,
  },
  "alpha_flow": {
    "loss": {
      "label_dropout": 0.1,
      "block": (4, 3),
      "omega": 1.0,
      "kappa": 0.5,
      "clip": 4.0,
    },
    "optimizer": {**_ADAMW, "b2": 0.95},
    "train": {"steps": 400_000, "batch_size": 256},
    "ema": _EMA,
  },
  # Guidance 3 with a mix ratio of 0.25: omega = 0.25 * 3, kappa = 1 - 0.25.
  "solution_flow": {
    "loss": {
      "label_dropout": 0.1,
      "omega": 0.75,
      "kappa": 0.75,
      "decay_start": 0.8,
    },
    "optimizer": {**_ADAMW, "b2": 0.99},
    "train": {"steps": 400_000, "batch_size": 256},
    "ema": _EMA,
  },
  "improved_mean_flow": {
    # Conditions are tokens; the network sees t - s alone.
    "model": {
      "head_depth": 8,
      "context": (8, 4, 2, 4),
      "sees_time": False,
      "positions": "none",
      "rotary": True,
      "norm": "rms",
      "qk_norm": True,
      "mlp": "swiglu",
      "bias": False,
    },
    "loss": {"label_dropout": 0.1, "omega_max": 8.0},
    # 10 of 640 epochs.
    "optimizer": {**_ADAMW, "b2": 0.95, "warmup_steps": 12_511},
    "train": {"steps": 800_000, "batch_size": 1024},
    "ema": _EMA,
  },
  "shortcut": {
    "loss": {"label_dropout": 0.1, "omega": 1.5},
    "optimizer": {**_ADAMW, "weight_decay": 0.1},
    "train": {"steps": 810_000, "batch_size": 256},
    # As published, samples are those of the network itself.
    "ema": _EMA,
    "sample": {"ema": "online"},
    "evaluation": {"nfe": (1, 4, 128)},
  },
  "terminal_velocity": {
    # As published, but for the norm of what modulates a block.
    "model": {"norm": "rms", "qk_norm": True, "dtype": "bfloat16"},
    "loss": {"omega": 2.0, "label_dropout": 0.1},
    "flow_map": {"omega": 2.0},
    "optimizer": {**_ADAMW, "b2": 0.95},
    "train": {"steps": 300_000, "batch_size": 2048},
    "ema": _EMA,
  },
  "decoupled_mean_flow": {
    "model": {"dtype": "bfloat16"},
    "loss": {"label_dropout": 0.1, "kappa": 0.6, "guidance_end": 0.7},
    "optimizer": {**_ADAMW, "b2": 0.95, "clip_norm": 1.0},
    "train": {"steps": 400_000, "batch_size": 256},
    "ema": _EMA,
    "init": {"workdir": "runs/flow_matching"},
  },
  # A batch has one new image of each of 128 classes.
  "drifting": {
    "model": {
      "sees_time": False,
      "second_time": False,
      "guidance_inputs": False,
      "omega": 1.0,
      "noise_labels": 32,
      "summary_tokens": 16,
      "positions": "learned",
      "rotary": True,
      "norm": "rms",
      "qk_norm": True,
      "mlp": "swiglu",
    },
    "loss": {
      "group": 1,
      "group_samples": 64,
      "positives": 64,
      "negatives": 32,
      "kept_positives": 128,
      "kept_negatives": 1000,
    },
    "optimizer": {
      **_ADAMW,
      "learning_rate": 4e-4,
      "b2": 0.95,
      "weight_decay": 0.01,
      "warmup_steps": 10_000,
      "clip_norm": 2.0,
    },
    "train": {"steps": 200_000, "batch_size": 128},
    "ema": {"sampling": {"name": "constant", "decay": 0.999}},
  },
  # One call; the others of the paper are more blocks, or a law of other times.
  "adversarial_flow": {
    "optimizer": {**_ADAMW, "weight_decay": 0.01},
    "train": {"steps": 1_000_000, "batch_size": 256},
    "ema": _EMA,
    "discriminator": {
      "network": {"name": "conv", "width": 128, "depth": 4, "timed": True},
      "optimizer": {"name": "adamw", "weight_decay": 0.01},
    },
  },
  "moment_matching": {
    "data": {"data_dir": "runs/half_latents"},
    "path": {"name": "linear", "t_min": 0.0, "t_max": 0.994, "noise_std": 0.5},
    "parameterization": {"name": "normalized"},
    "loss": {
      "label_dropout": 0.1,
      "halvings": 12,
      "weight_power": 2.0,
      "weight_shift": 4.0,
    },
    "optimizer": _ADAMW,
    "train": {"steps": 1_200_000, "batch_size": 1024},
    "ema": _EMA,
    "sample": {"nfe": 8, "guidance": 1.5},
    "evaluation": {"nfe": (1, 2, 4, 8)},
  },
}

# What one size of a method has for itself.
SIZE_FIELDS = {
  **{
    f"decoupled_mean_flow-{size}": {"model": {"second_time_from": blocks}}
    for size, blocks in {"S": 8, "B": 8, "M": 11, "L": 16, "XL": 20}.items()
  },
  "terminal_velocity-XL": {"model": {"num_heads": 18}},
  "mean_flow-XL": {
    "loss": {
      "omega": 0.2,
      "kappa": 0.92,
      "guidance_end": 0.75,
      "norm_eps": 1.0,
    },
    "train": {"steps": 300_000, "batch_size": 1024},
  },
  "alpha_flow-XL": {
    "loss": {
      "block": (2, 1),
      "omega": 0.2,
      "kappa": 0.92,
      "guidance_end": 0.75,
      "ratio": {"start": 0.5, "end": 5 / 6},
    },
    "train": {"steps": 1_200_000},
  },
  "improved_mean_flow-B": {
    "flow_map": {"omega": 8.0, "t_start": 0.4, "t_end": 0.65}
  },
  "improved_mean_flow-M": {
    "flow_map": {"omega": 10.5, "t_start": 0.4, "t_end": 0.6}
  },
  "improved_mean_flow-L": {
    "flow_map": {"omega": 10.5, "t_start": 0.4, "t_end": 0.6}
  },
  "improved_mean_flow-XL": {
    "flow_map": {"omega": 8.0, "t_start": 0.42, "t_end": 0.62}
  },
}


def get_config(name: str) -> Config:
  """Return the published config of "METHOD" or "METHOD-SIZE/PATCH"."""
  method, _, network = name.partition("-")
  fields = choose("method", method, METHOD_FIELDS)
  sizes = _IMPROVED_SIZES if method == "improved_mean_flow" else _SIZES
  networks = {f"{k}/{patch}": k for k in sizes for patch in _PATCHES}
  network = network or "XL/2"
  size = choose("size", network, networks)
  config = default_config(method, data="latents", model="dit")
  config.data.update(
    data_dir="runs/latents", shape=(32, 32, 4), num_classes=1000
  )
  config.model.update(
    sizes[size],
    patch_size=int(network.partition("/")[2]),
    scan_layers=True,
    remat=True,
  )
  config.train.log_every = 500
  config.checkpoint.every = 5000
  update(config, fields)
  update(config, SIZE_FIELDS.get(f"{method}-{size}", {}))
  return config
