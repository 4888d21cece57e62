"""Handwritten digits: 1,797 real 8x8 images of 10 classes, from scikit-learn.

  jaxflow train --config=configs/digits.py:METHOD --workdir=runs/METHOD

About a minute each on 2 CPU cores. Share of samples that a classifier of real
digits recognises (of real held-out digits: 98.1 %), and sliced Wasserstein
distance to held-out digits (as many real training digits: 0.056):

  flow_matching             50 calls 96.4 %, 0.064
  mean_flow                  1 call  96.9 %, 0.063
  consistency_distillation   1 call  99.0 %, 0.070

The student needs --config.teacher.workdir, by default runs/flow_matching.
`make demo` trains all three.
"""

from jaxflow.config import Config, default_config, update

METHOD_FIELDS = {
  "flow_matching": {
    "train": {"steps": 1200},
    # The null label is for the guidance of the teacher.
    "loss": {"label_dropout": 0.1},
  },
  "mean_flow": {
    "train": {"steps": 1600},
    # Uniform times, more interval rows and a milder weight than published: the
    # small network has to learn the long jumps in minutes.
    "times": {"name": "sorted_pair", "law": {"name": "uniform"}},
    "loss": {"block": (2, 1), "norm_power": 0.5},
  },
  "consistency_distillation": {
    "train": {"steps": 600},
    "optimizer": {"learning_rate": 1e-3},
    "teacher": {"workdir": "runs/flow_matching", "guidance": 1.3},
  },
}


def get_config(method: str) -> Config:
  """Return the config of a method on the digits."""
  config = default_config(method, data="digits", model="dit")
  config.model.update(depth=3, width=64, num_heads=2, patch_size=2)
  config.optimizer.update(
    learning_rate=4e-3, b2=0.99, schedule="cosine", warmup_steps=100
  )
  config.ema.sampling = {"name": "power", "width": 0.1}
  config.train.update(batch_size=128, log_every=250, sample_every=500)
  config.checkpoint.every = 500
  update(config, METHOD_FIELDS.get(method, {}))
  return config
