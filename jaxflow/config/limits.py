"""What numbers the fields of a config may hold; checked before anything runs.

Fields that a component takes (`model.width`, `times.std`) are checked where the
component is made; fields that must agree with one another, where they meet.
"""

import math

from jaxflow.config.components import Config
from jaxflow.config.files import flatten
from jaxflow.errors import UsageError

_COUNT = ("1 or more", lambda x: x >= 1)
_AMOUNT = ("a finite number, 0 or more", lambda x: 0 <= x < math.inf)
_POSITIVE = ("a finite number above 0", lambda x: 0 < x < math.inf)
_DECAY = ("0 or more, below 1", lambda x: 0 <= x < 1)
_SAMPLES = ("4 or more", lambda x: x >= 4)
_SHARE = ("a share from 0 to 1", lambda x: 0 <= x <= 1)

_OPTIMIZER = {
  "learning_rate": _POSITIVE,
  "warmup_steps": _AMOUNT,
  "b1": _DECAY,
  "b2": _DECAY,
  "eps": _POSITIVE,
  "weight_decay": _AMOUNT,
  "clip_norm": _AMOUNT,
}

LIMITS = {
  "seed": ("0 to 2147483647", lambda x: 0 <= x < 2**31),
  "data.size": _COUNT,
  "data.ram_gib": _AMOUNT,
  "data.threads": _AMOUNT,
  "data.synthetic_share": _SHARE,
  "loss.label_dropout": _SHARE,
  "loss.reconstruction_weight": _AMOUNT,
  "loss.perceptual_weight": _AMOUNT,
  "loss.adversarial_weight": _AMOUNT,
  "loss.denoising_weight": _AMOUNT,
  "loss.guided_weight": _AMOUNT,
  "loss.sigma_data": _POSITIVE,
  "loss.tangent_clip": _AMOUNT,
  "loss.start_time": ("above 0, at most 1", lambda x: 0 < x <= 1),
  "loss.omega_max": ("1 or more", lambda x: 1 <= x < math.inf),
  "flow_map.sigma_data": _POSITIVE,
  **{f"optimizer.{k}": v for k, v in _OPTIMIZER.items()},
  **{f"discriminator.optimizer.{k}": v for k, v in _OPTIMIZER.items()},
  "discriminator.start": ("a share from 0 to below 1", lambda x: 0 <= x < 1),
  "train.steps": _COUNT,
  "train.batch_size": _COUNT,
  "train.accumulate": _COUNT,
  "train.steps_per_dispatch": _COUNT,
  "train.log_every": _COUNT,
  "train.sample_every": _AMOUNT,
  "train.max_skipped": _COUNT,
  "checkpoint.every": _COUNT,
  "checkpoint.keep": _COUNT,
  "checkpoint.keep_every": _AMOUNT,
  "sample.nfe": _COUNT,
  "sample.batch_size": _COUNT,
  # The manifolds of precision and recall have 3 neighbours.
  "evaluation.num": _SAMPLES,
  "evaluation.kept": _SAMPLES,
  "evaluation.batch_size": _COUNT,
  "evaluation.flow.num": ("0, or 2 or more", lambda x: x == 0 or x > 1),
  "evaluation.flow.steps": _COUNT,
  "evaluation.flow.probes": _COUNT,
  "evaluation.flow.levels": ("0, or 2 or more", lambda x: x == 0 or x > 1),
  "evaluation.during.every": _AMOUNT,
  "evaluation.during.num": _SAMPLES,
  "evaluation.during.share": ("above 0, below 1", lambda x: 0 < x < 1),
}


def check_limits(config: Config) -> None:
  """Raise UsageError if a number of a config is out of its range.

  Args:
    config: A config as `default_config` makes it.

  Raises:
    UsageError: The first field that is out of range.

  Example:
    >>> from jaxflow.config import default_config
    >>> config = default_config("mean_flow", data="ring", model="mlp")
    >>> config.train.steps = 0
    >>> check_limits(config)
    Traceback (most recent call last):
    ...
    jaxflow.errors.UsageError: train.steps=0: give 1 or more
  """
  values = flatten(config.to_dict())
  for field, (wanted, allowed) in LIMITS.items():
    value = values.get(field)
    if value is not None and not allowed(value):
      raise UsageError(f"{field}={value}: give {wanted}")
