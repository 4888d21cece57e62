"""The fields of a config and the ranges of their numbers, checked first.

Signatures declare the ranges of the options of the loss and of components;
those of the other fields stand here. Fields that must agree with one another
are checked where they meet.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxflow import options
from jaxflow.config import registry, schema, versions
from jaxflow.config.components import Config, at, components, makers
from jaxflow.config.fields import dots, flatten, hint
from jaxflow.errors import UsageError, check_range, inside
from jaxflow.files import NO_URL, URL
from jaxflow.options import AMOUNT, BELOW_ONE, COUNT, POSITIVE, SHARE, Range
from jaxflow.reading import checked
from jaxflow.training.optimizers import OptimizerOptions

# The number of a sample is a word of 32 bits.
_SAMPLES = Range(f"4 to {2**32}", lambda x: 4 <= x <= 2**32)
_CALLS = Range(
  f"one or more of them, each {options.CALLS.text}",
  lambda x: len(x) > 0 and all(map(options.CALLS.allows, x)),
)
_DEVICES = Range("-1, or 1 or more", lambda x: x == -1 or x >= 1)
_SEVERAL = Range("0, or 2 or more", lambda x: x == 0 or x > 1)


def _finite(values: Sequence[Any]) -> bool:
  return all(isinstance(x, int | float) and math.isfinite(x) for x in values)


def _is_numeric(name: str) -> bool:
  try:
    return np.dtype(name).kind in "biuf"
  except TypeError:
    return False


_OFFSET = Range("finite numbers", lambda x: x and _finite(x))
_SCALE = Range(
  "finite numbers above 0", lambda x: x and _finite(x) and min(x) > 0
)

_OPTIMIZER = {
  "learning_rate": POSITIVE,
  "warmup_steps": AMOUNT,
  "b1": BELOW_ONE,
  "b2": BELOW_ONE,
  "eps": POSITIVE,
  "weight_decay": AMOUNT,
  "clip_norm": AMOUNT,
}

_COUNTS = (
  *("data.size", "train.steps", "train.batch_size", "train.accumulate"),
  *("train.steps_per_dispatch", "train.log_every", "train.max_skipped"),
  *("checkpoint.every", "checkpoint.keep", "sample.batch_size"),
  *("evaluation.batch_size", "evaluation.flow.probes"),
)
_AMOUNTS = (
  *("data.ram_gib", "data.threads", "data.max_broken", "train.sample_every"),
  *("train.schedule_steps", "init.step", "data.coupling.rows"),
  *("checkpoint.keep_every", "evaluation.during.every"),
  *("sample.guidance_start", "sample.guidance_end"),
)
_FINITE = ("sample.guidance", "teacher.guidance")
LIMITS = {
  "seed": options.SEED,
  "data.shape": Range(
    "whole numbers, each 1 or more",
    lambda x: x and all(isinstance(n, int) and n >= 1 for n in x),
  ),
  "data.class_names": Range(
    "texts", lambda x: all(isinstance(name, str) for name in x)
  ),
  **dict.fromkeys(_COUNTS, COUNT),
  **dict.fromkeys(_AMOUNTS, AMOUNT),
  **dict.fromkeys(_FINITE, options.FINITE),
  "data.synthetic_share": SHARE,
  "data.channels": Range("1, 2, 3 or 4", lambda x: x in (1, 2, 3, 4)),
  "data.background": Range(
    "three whole numbers from 0 to 255",
    lambda x: len(x) == 3 and all(0 <= v <= 255 for v in x),
  ),
  "data.test_share": BELOW_ONE,
  "train.prng": Range(
    "threefry2x32 or rbg", lambda x: x in ("threefry2x32", "rbg")
  ),
  **dict.fromkeys(("data.offset", "data.cond_offset"), _OFFSET),
  **dict.fromkeys(("data.scale", "data.cond_scale"), _SCALE),
  "data.range": Range(
    "two finite numbers, the lower first",
    lambda x: len(x) == 2 and _finite(x) and x[0] <= x[1],
  ),
  "data.dtype": Range("a type of numbers, 'float32' for one", _is_numeric),
  **{
    f"{section}.{k}": v
    for section in schema.OPTIMIZERS
    for k, v in _OPTIMIZER.items()
  },
  **dict.fromkeys(("mesh.data", "mesh.fsdp", "mesh.tensor"), _DEVICES),
  "discriminator.start": BELOW_ONE,
  **dict.fromkeys(("discriminator.ratio", "fake_score.ratio"), COUNT),
  "sample.nfe": options.CALLS,
  "evaluation.nfe": _CALLS,
  "evaluation.during.nfe": _CALLS,
  # The manifolds of precision and recall have 3 neighbours.
  "evaluation.num": _SAMPLES,
  "evaluation.kept": _SAMPLES,
  "evaluation.during.num": _SAMPLES,
  "evaluation.flow.num": _SEVERAL,
  "evaluation.flow.levels": _SEVERAL,
  # Half as many confirm the likelihood.
  "evaluation.flow.steps": Range("2 or more", lambda x: x >= 2),
  "evaluation.during.share": Range("above 0, below 1", lambda x: 0 < x < 1),
}


def check_limits(config: Config) -> None:
  """Raise UsageError if a field is unknown, or its value is impossible."""
  for role in ("teacher", "features"):
    with inside(f"{role}.config"):
      if config.get(role, {}).get("config", None) is not None:
        check_limits(config[role].config)
  values, limits = flatten(config.to_dict()), dict(LIMITS)
  above: dict[str, str] = {}
  default = _check_known(config)
  made = makers(config)
  for field, maker in made.items():
    _check_options(at(config, field).to_dict(), maker, field)
    for name, limit in options.marked(maker, Range).items():
      limits[f"{field}.{name}"] = limit
    for name, mark in options.marked(maker, options.Above).items():
      above[f"{field}.{name}"] = f"{field}.{mark.other}"
  for field, value in values.items():
    # JAX takes the options of components as words of 32 bits.
    bits = 32 if field.rpartition(".")[0] in made else 64
    number = isinstance(value, int) and limits.get(field) is not options.SEED
    if number and abs(value) >= 2 ** (bits - 1):
      raise UsageError(f"{field}={value}: give a number of {bits} bits")
  for field, limit in limits.items():
    if (value := values.get(field)) is not None:
      check_range(limit, **{field: value})
  for field, other in above.items():
    # The other has a value where it may not.
    low, high = values.get(other), values.get(field)
    if low is not None and high is not None and high <= low:
      raise UsageError(f"{field}={high}: give more than {other}={low}")
  try:
    versions.check_types(default, config.to_dict())
  except ValueError as error:
    raise UsageError(str(error)) from error
  for section in schema.OPTIMIZERS:
    if f"{section}.name" in values:
      with inside(section):
        OptimizerOptions(**at(config, section).to_dict())
  for field, value in values.items():
    # What another machine has stored is opened where it may be only.
    place = isinstance(value, str) and field != "data.stored_dir"
    if place and URL.match(value):
      raise UsageError(f"{field}={value!r}: {NO_URL}")
    # A number alone may be infinite where its range says so.
    several = isinstance(value, list)
    for x in value if several else [value]:
      if isinstance(x, float) and (x != x or (several and math.isinf(x))):
        raise UsageError(f"{field}={value}: give finite numbers")


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


def _check_known(config: Config) -> Config:
  """Raise UsageError if a field is absent, or misspelt; return the defaults."""
  given = flatten(config.to_dict())
  for field in ("method", "data.name", "model.name"):
    if not isinstance(given.get(field), str):
      raise UsageError(f"{field}={given.get(field)}: give a name")
  default = schema.default_config(
    config.method, data=config.data.name, model=config.model.name
  )
  fields = flatten(default.to_dict())
  # Components have the options of their names.
  named = tuple(f"{k}." for k in components(default) if k != "loss")
  absent = [k for k in default if k not in config]
  there = given.keys() | {k[:i] for k in given for i in dots(k)}
  absent += [k for k in fields if k not in there and not k.startswith(named)]
  if absent:
    raise UsageError(
      f"method={config.method!r} lacks {absent[0]}: begin with its own preset"
    )
  for field, value in versions.unknown(config, fields).items():
    # Those that a run embeds were checked when it was read.
    if field.startswith(("teacher.config.", "features.config.")):
      continue
    raise UsageError(
      f"{field}={value!r} is no field of the config: {hint(field, fields)}"
    )
  return default
