"""Draft."""

from jaxflow.config import Config, default_config


def get_config(method: str) -> Config:
  """Return the config of a method on the digits."""
  config = default_config(method, data="digits", model="dit")
  config.model.update(depth=3, width=64, num_heads=2, patch_size=2)
  config.optimizer.update(learning_rate=4e-3, b2=0.99, warmup_steps=100)
  config.optimizer.schedule = "cosine"
  config.ema.sampling = {"name": "power", "width": 0.1}
  config.train.update(steps=2000, batch_size=128, log_every=200)
  config.checkpoint.every = 500
  if "label_dropout" in config.loss:
    config.loss.label_dropout = 0.1
  if method == "mean_flow":
    pass
  return config
