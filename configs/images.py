"""Pictures in a folder of yours, with class folders or without.

  jaxflow train --config=images:METHOD --config.data.dir=PICTURES \
    --workdir=runs/METHOD

Pictures of all sizes are cut to their middle square and scaled to
`config.data.size`, 64 pixels; docs/data.md says what the folder may hold. The
network is a DiT of 33 million parameters in patches of 4 pixels, and the recipe
that of MeanFlow's authors (Geng et al. 2025, arXiv:2505.13447) but for the
length: meant for an accelerator. The README trains a smaller one in minutes on
2 CPU cores.

The student needs --config.teacher.workdir, by default runs/flow_matching.
"""

from jaxflow.config import Config, default_config, update

METHOD_FIELDS = {
  # The null label is for the guidance of samples, or of students.
  "consistency_distillation": {"teacher": {"workdir": "runs/flow_matching"}},
}


def get_config(method: str) -> Config:
  """Return the config of a method on the pictures in config.data.dir."""
  config = default_config(method, data="folder", model="dit")
  config.data.size = 64
  config.model.update(depth=12, width=384, num_heads=6, patch_size=4)
  config.optimizer.update(
    learning_rate=1e-4, b2=0.95, schedule="cosine", warmup_steps=100
  )
  config.train.update(
    steps=100_000, batch_size=128, log_every=100, sample_every=2_000
  )
  config.checkpoint.every = 2_000
  config.evaluation.flow.num = 0
  update(config, METHOD_FIELDS.get(method, {}))
  return config
