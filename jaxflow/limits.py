"""What numbers the fields of a config may hold; checked before anything runs.

Fields that a component takes (`model.width`, `times.std`) are checked where the
component is made; fields that must agree with one another, where they meet.
"""

import math

from jaxflow.config import Config
from jaxflow.errors import UsageError

_COUNT = ("1 or more", lambda x: x >= 1)
_AMOUNT = ("a finite number, 0 or more", lambda x: 0 <= x < math.inf)
_POSITIVE = ("a finite number above 0", lambda x: 0 < x < math.inf)
_DECAY = ("0 or more, below 1", lambda x: 0 <= x < 1)
_SHARE = ("a share from 0 to 1", lambda x: 0 <= x <= 1)

LIMITS = {
  "seed": ("0 to 2147483647", lambda x: 0 <= x < 2**31),
  "loss.label_dropout": _SHARE,
  "optimizer.learning_rate": _POSITIVE,
  "optimizer.warmup_steps": _AMOUNT,
  "optimizer.b1": _DECAY,
  "optimizer.b2": _DECAY,
  "optimizer.eps": _POSITIVE,
  "optimizer.weight_decay": _AMOUNT,
  "optimizer.clip_norm": _AMOUNT,
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
  "evaluation.draws": _COUNT,
  # The manifolds of precision and recall have 3 neighbours.
  "evaluation.num": ("4 or more", lambda x: x >= 4),
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
  for field, (wanted, allowed) in LIMITS.items():
    section, _, name = field.rpartition(".")
    values = config[section] if section else config
    if name in values and not allowed(values[name]):
      raise UsageError(f"{field}={values[name]}: give {wanted}")
