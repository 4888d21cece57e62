"""Latents of an image set, as `jaxflow encode` makes them: DiT-B/2.

  jaxflow encode --data=NAME --autoencoder=PATH --out=runs/latents
  jaxflow train --config=configs/latents.py:METHOD --workdir=runs/METHOD

The recipe is the one that was published for MeanFlow on ImageNet's latents of
32 x 32 x 4 (Geng et al. 2025, arXiv:2505.13447): batch 256, Adam with
a constant rate, average 0.9999, 240 epochs; other sizes are
`--config.model.depth`, `width`, `num_heads`. It is meant for accelerators; no
score of this project's own stands behind it.
"""

from jaxflow.config import Config, default_config, update

METHOD_FIELDS = {
  # The null label is for the guidance of samples, or of students.
  "flow_matching": {"loss": {"label_dropout": 0.1}},
  "consistency_distillation": {"teacher": {"workdir": "runs/flow_matching"}},
}


def get_config(method: str) -> Config:
  """Return the config of a method on the latents in runs/latents."""
  config = default_config(method, data="latents", model="dit")
  config.data.data_dir = "runs/latents"
  config.model.update(depth=12, width=768, num_heads=12, patch_size=2)
  config.optimizer.update(learning_rate=1e-4, b2=0.95)
  update(config, {"ema": {"sampling": {"name": "constant", "decay": 0.9999}}})
  config.train.update(
    steps=1_200_000, batch_size=256, log_every=100, sample_every=10_000
  )
  config.checkpoint.every = 10_000
  update(config, METHOD_FIELDS.get(method, {}))
  return config
