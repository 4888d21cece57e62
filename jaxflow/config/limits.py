"""The fields of a config and the ranges of their numbers, checked first.

Signatures declare the ranges of the options of the loss and of components;
those of the other fields stand here. Fields that must agree with one another
are checked where they meet.
"""

import difflib
from collections.abc import Callable
from typing import Any

from jaxflow import options
from jaxflow.config import registry, schema, versions
from jaxflow.config.components import Config, at, makers
from jaxflow.config.versions import flatten
from jaxflow.errors import UsageError, inside
from jaxflow.files import checked
from jaxflow.options import AMOUNT, BELOW_ONE, COUNT, POSITIVE, SHARE, Range

# The number of a sample is a word of 32 bits.
_SAMPLES = Range(f"4 to {2**32}", lambda x: 4 <= x <= 2**32)
_CALLS = Range(
  "one or more whole numbers, each 1 or more",
  lambda x: len(x) > 0 and min(x) >= 1,
)
_NUMBER = Range("a number", lambda x: x == x)  # NaN is none.
_DEVICES = Range("-1, or 1 or more", lambda x: x == -1 or x >= 1)
_SEVERAL = Range("0, or 2 or more", lambda x: x == 0 or x > 1)

_OPTIMIZER = {
  "learning_rate": POSITIVE,
  "warmup_steps": AMOUNT,
  "b1": BELOW_ONE,
  "b2": BELOW_ONE,
  "eps": POSITIVE,
  "weight_decay": AMOUNT,
  "clip_norm": AMOUNT,
}

LIMITS = {
  "seed": Range("0 to 2147483647", lambda x: 0 <= x < 2**31),
  "data.size": COUNT,
  "data.ram_gib": AMOUNT,
  "data.threads": AMOUNT,
  "data.synthetic_share": SHARE,
  **{f"optimizer.{k}": v for k, v in _OPTIMIZER.items()},
  **{f"discriminator.optimizer.{k}": v for k, v in _OPTIMIZER.items()},
  "discriminator.start": Range(
    "a share from 0 to below 1", lambda x: 0 <= x < 1
  ),
  "train.steps": COUNT,
  "train.batch_size": COUNT,
  "train.accumulate": COUNT,
  "train.steps_per_dispatch": COUNT,
  "train.log_every": COUNT,
  "train.sample_every": AMOUNT,
  "train.max_skipped": COUNT,
  "checkpoint.every": COUNT,
  "checkpoint.keep": COUNT,
  "checkpoint.keep_every": AMOUNT,
  **dict.fromkeys(("mesh.data", "mesh.fsdp", "mesh.tensor"), _DEVICES),
  "sample.nfe": COUNT,
  "sample.batch_size": COUNT,
  # The manifolds of precision and recall have 3 neighbours.
  "evaluation.nfe": _CALLS,
  "evaluation.during.nfe": _CALLS,
  "evaluation.num": _SAMPLES,
  "evaluation.kept": _SAMPLES,
  "evaluation.batch_size": COUNT,
  "evaluation.flow.num": _SEVERAL,
  # Half as many confirm the likelihood.
  "evaluation.flow.steps": Range("2 or more", lambda x: x >= 2),
  "evaluation.flow.probes": COUNT,
  "evaluation.flow.levels": _SEVERAL,
  "evaluation.during.every": AMOUNT,
  "evaluation.during.num": _SAMPLES,
  "evaluation.during.share": Range("above 0, below 1", lambda x: 0 < x < 1),
}


def check_limits(config: Config) -> None:
  """Raise UsageError if a field is unknown, or its value is impossible."""
  for role in ("teacher", "features"):
    with inside(f"{role}.config"):
      if config.get(role, {}).get("config", None) is not None:
        check_limits(config[role].config)
  values, limits = flatten(config.to_dict()), dict(LIMITS)
  _check_known(config)
  for field, maker in makers(config).items():
    _check_options(at(config, field).to_dict(), maker, field)
    for name, limit in options.marked(maker, Range).items():
      limits[f"{field}.{name}"] = limit
  for field, value in values.items():
    limit = limits.get(field, _NUMBER)
    if value is not None and not limit.allows(value):
      raise UsageError(f"{field}={value}: give {limit.text}")


def _check_options(section: Any, maker: Callable, where: str) -> None:
  """Raise UsageError if an option is not of the type that its maker takes."""
  layers = dict.fromkeys(options.marked(maker, options.Layer), str)
  kinds = layers | {k: {"name": str} for k in registry.kinds_of(maker)}
  for name, p in options.parameters(maker).items():
    if section.get(name) is not None:
      try:
        checked(section[name], kinds.get(name, p.annotation), f"{where}.{name}")
      except ValueError as error:
        raise UsageError(str(error)) from error


def _check_known(config: Config) -> None:
  """Raise UsageError if nothing reads a field: it is misspelt."""
  default = schema.default_config(
    config.method, data=config.data.name, model=config.model.name
  )
  fields = flatten(default.to_dict())
  for field, value in versions.unknown(config, fields).items():
    # Those that a run embeds were checked when it was read.
    if field.startswith(("teacher.config.", "features.config.")):
      continue
    near = difflib.get_close_matches(field, fields, n=1)
    hint = f"did you mean {near[0]}?" if near else "leave it out"
    raise UsageError(f"{field}={value!r} is no field of the config: {hint}")
