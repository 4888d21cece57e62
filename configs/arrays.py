"""Arrays in a file of yours: tables, sequences, images, volumes.

  jaxflow train --config=arrays:METHOD --config.data.file=ROWS.npy \
    --workdir=runs/METHOD

The file holds samples [N, ...], an .npz file perhaps "labels" as well;
docs/data.md says how they are scaled. The network is a multilayer perceptron,
for tables. Sequences [N, L, C] and volumes [N, D, H, W, C] are better served by
--config.model.name=dit, whose patch_size divides all sizes but the channels.

The student needs --config.teacher.workdir, by default runs/flow_matching.
"""

from jaxflow.config import Config, default_config, update

METHOD_FIELDS = {
  "consistency_distillation": {"teacher": {"workdir": "runs/flow_matching"}},
}


def get_config(method: str) -> Config:
  """Return the config of a method on the arrays in config.data.file."""
  config = default_config(method, data="arrays", model="mlp")
  config.model.update(width=256, depth=4)
  config.optimizer.update(learning_rate=1e-3, schedule="cosine")
  config.train.update(
    steps=20_000, batch_size=256, log_every=500, sample_every=2_000
  )
  config.train.steps_per_dispatch = 100
  config.checkpoint.every = 2_000
  config.evaluation.flow.num = 0
  update(config, METHOD_FIELDS.get(method, {}))
  return config
