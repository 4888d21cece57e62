"""Ring."""

from jaxflow.config import Config, default_config


def get_config(method: str) -> Config:
  """Return the config of a method on the ring."""
  config = default_config(method, data="ring", model="mlp")
  config.data.conditional = False
  config.model.update(width=128, depth=3, time_features=64)
  config.optimizer.update(learning_rate=2e-3, schedule="cosine")
  config.ema.sampling = {"name": "power", "width": 0.1}
  config.train.update(steps=3000, batch_size=512, log_every=500)
  config.train.steps_per_dispatch = 100
  config.checkpoint.every = 1000
  return config
