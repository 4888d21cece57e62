"""A ring of 8 Gaussians in the plane: radius 1, standard deviation 0.1.

  jaxflow train --config=configs/ring.py:METHOD --workdir=runs/METHOD

15 to 20 s each on 2 CPU cores. Sliced Wasserstein distance to held-out points,
where as many real training points score 0.073 +- 0.006:

  flow_matching             20 calls 0.056
  mean_flow                  1 call  0.074, 4 calls 0.069
  consistency_distillation   1 call  0.059, 4 calls 0.058

The student needs --config.teacher.workdir, by default runs/flow_matching.
"""

from jaxflow.config import Config, default_config, update

METHOD_FIELDS = {
  "mean_flow": {
    "times": {"name": "sorted_pair", "law": {"name": "uniform"}},
    "loss": {"block": (2, 1), "norm_power": 0.5},
  },
  # The points have no labels here.
  "improved_mean_flow": {"loss": {"label_dropout": 0.0, "norm_power": 0.5}},
  "consistency_distillation": {
    "optimizer": {"learning_rate": 5e-4},
    "teacher": {"workdir": "runs/flow_matching"},
  },
}


def get_config(method: str) -> Config:
  """Return the config of a method on the ring."""
  config = default_config(method, data="ring", model="mlp")
  config.data.conditional = False
  config.model.update(width=128, depth=3)
  config.optimizer.update(learning_rate=2e-3, schedule="cosine")
  config.ema.sampling = {"name": "power", "width": 0.1}
  config.train.update(steps=4000, batch_size=512, log_every=500)
  config.train.steps_per_dispatch = 100
  config.checkpoint.every = 1000
  update(config, METHOD_FIELDS.get(method, {}))
  return config
