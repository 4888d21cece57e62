"""The fields that every config has, and what is mistyped among them.

It needs no JAX. The options of a method, of its loss, of a network and of other
components are fields as well, but stand in signatures, which load JAX: those
the config itself knows, once it is made.
"""

import difflib
import functools
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from absl import flags

from jaxflow.errors import UsageError

OPTIMIZER: dict[str, Any] = {
  "name": "adam",
  "learning_rate": 1e-4,
  "schedule": "constant",
  "warmup_steps": 0,
  "b1": 0.9,
  "b2": 0.999,
  "eps": 1e-8,
  "weight_decay": 0.0,
  "clip_norm": 0.0,
}

# By sections, with their defaults; a type is a place for a value.
EVERY: Mapping[str, Any] = {
  "seed": 0,
  "data": {
    "name": str,
    "raw_dir": str,
    "data_dir": str,
    "stored_dir": str,  # Of a config.json.
    # Of pictures, as `data.load` describes these.
    "dir": str,
    "hub": str,
    "config": str,
    "image": str,
    "file": str,
    "size": int,
    "channels": int,
    "background": (255, 255, 255),
    "crop": "centre",
    # "grouped": rows of a class stand together, as many as the loss takes.
    "order": "shuffled",
    "label": str,
    "split": {
      "train": str,
      "test": str,
    },
    "test_share": float,
    "normalise": str,
    "max_broken": 0,
    "ram_gib": 4.0,
    "threads": 0,
    "download": False,
    # Mirrors half of the real images of every batch.
    "flip": False,
    "conditional": True,
    "shape": tuple,
    "num_classes": int,
    "class_names": tuple,
    # Of arrays, as `data.Scaling` describes these.
    "offset": tuple,
    "scale": tuple,
    "range": tuple,
    "dtype": str,
    # Of labels that are numbers.
    "cond_offset": tuple,
    "cond_scale": tuple,
  },
  "optimizer": OPTIMIZER,
  "init": {
    "workdir": "",
    "ema": "sampling",
    "step": int,
  },
  "train": {
    "steps": 10_000,
    # 0: the steps with which the run begins.
    "schedule_steps": 0,
    "batch_size": 128,
    "accumulate": 1,
    "steps_per_dispatch": 25,
    "log_every": 100,
    "sample_every": 0,
    # The parameters that learn, by a regular expression of their paths.
    "only": "",
    "max_skipped": 100,
    # JAX's generator of the random numbers of a step: threefry2x32 or rbg.
    "prng": "threefry2x32",
  },
  "checkpoint": {"every": 1000, "keep": 3, "keep_every": 0},
  "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
  "sample": {
    "nfe": 1,
    "batch_size": 2048,
    "guidance": 1.0,
    "guidance_start": float,
    "guidance_end": float,
    "ema": "sampling",
    "grid": {"name": "uniform"},
    "sampler": {"name": "default"},
  },
  "evaluation": {
    "nfe": (1, 2, 4),
    # Generated samples, and of how many pairs are compared.
    "num": 2000,
    "kept": 10_000,
    "batch_size": 256,
    # The split that samples are compared with, or a file of its statistics.
    "split": "test",
    "reference": "",
    # Names with commas between; all that apply where it is empty.
    "metrics": "",
    # Of the data's likelihood and of trajectories; num 0: not computed.
    "flow": {"num": 256, "steps": 32, "probes": 1, "levels": 0},
    # While training: every so many steps, 0: never; at most this share of
    # the time; the checkpoint that is best by a metric is kept.
    "during": {
      "every": 0,
      "num": 1000,
      "nfe": (1,),
      "metrics": "",
      "share": 0.1,
      "best": "",
    },
    # Sees images for distances of their features.
    "network": {"name": "none"},
  },
}

# Fields of data that some methods have.
PAIRS = {"pairs": "", "pairs_digest": str}
SHARE = {"synthetic_share": 1.0}
# Minibatch optimal transport among so many rows; 0: none.
COUPLING = {"coupling": {"rows": 0, "within_class": True}}

# Sections that depend on the method, or hold options of components.
_OTHERS = (
  *("method", "path", "model", "parameterization", "adapter", "loss"),
  *("flow_map", "times", "ema", "teacher", "features", "discriminator"),
  *("fake_score", "critic"),
)

# Sections with fields of some methods, or with components inside.
_VARYING = ("data", "sample", "evaluation")

# How a command line writes a value of a type.
_WRITTEN = {
  bool: "True or False",
  int: "a whole number",
  float: "a number",
  tuple: "whole numbers with commas between",
  list: "whole numbers with commas between",
}
_PARSERS = {
  bool: flags.BooleanParser(),
  int: flags.IntegerParser(),
  float: flags.FloatParser(),
}


def check(arguments: Iterable[str]) -> None:
  """Refuse `--config.FIELD=VALUE` with a mistyped field, or another's value.

  What may be an option of a component is left to the config.

  Raises:
    UsageError: A field is none, or its value is of another type.
  """
  fields = _fields()
  for argument in arguments:
    name, equals, value = argument.partition("=")
    field = name.removeprefix("--config.")
    if field in fields:
      if equals:
        _check_value(name, value, fields[field])
    elif not _may_be(field):
      meant = hint(field, fields, start="--config.")
      if meant.startswith("did you mean") or _is_complete(field):
        raise UsageError(absent(name, meant))


def _check_value(name: str, value: str, default: Any) -> None:
  """Raise UsageError if a value is none of a number's, or of a switch."""
  place = isinstance(default, type)
  parser = _PARSERS.get(default if place else type(default))
  try:
    if parser is not None:
      parser.parse(value)
  except ValueError as error:
    raise UsageError(wrong_value(name, value, default)) from error


def absent(name: str, meant: str) -> str:
  """Return the message on a name that is no field."""
  return f"{name} is no field of the config: {meant}"


def wrong_value(name: str, value: str, default: Any) -> str:
  """Return the message on a value, by a right one or by its type."""
  place = isinstance(default, type)
  kind = _WRITTEN.get(default if place else type(default), "text")
  example = "" if place else f", {written(default)} for instance"
  return f"{name}={value}: give {kind}{example}"


def written(value: Any) -> str:
  """Return a value as a command line writes it."""
  several = isinstance(value, list | tuple)
  return ",".join(map(str, value)) if several else str(value)


@functools.cache
def _fields() -> Mapping[str, Any]:
  """Return the fields of every config with their defaults, in order."""
  return dict(sorted(flatten(EVERY).items()))


def _may_be(field: str) -> bool:
  """Return whether a field may be one of a method, or of a component."""
  fields = _fields()
  sections = {k[:i] for k in fields for i in dots(k)}
  named = {x for x in sections if f"{x}.name" in fields}
  others = {*_OTHERS, "data.coupling", *named} - {"data", "optimizer"}
  where = field.rpartition(".")[0] or field
  near = difflib.get_close_matches(where, sections | others | {"seed"}, n=1)
  some = flatten({"data": PAIRS | SHARE | COUPLING})
  return field in some or not near or near[0] in others


def _is_complete(field: str) -> bool:
  """Return whether a field's section has the same fields in every config."""
  section = field.rpartition(".")[0]
  there = any(name.startswith(f"{section}.") for name in _fields())
  return there and section not in _VARYING


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
  """Return the fields of nested dicts by dotted name; tuples become lists.

  Example:
    >>> flatten({"a": {"b": 1, "c": (2, 3)}})
    {'a.b': 1, 'a.c': [2, 3]}
  """
  if not isinstance(values, dict):
    return {prefix: list(values) if isinstance(values, tuple) else values}
  parts = (
    flatten(v, f"{prefix}.{k}" if prefix else k) for k, v in values.items()
  )
  return {k: v for part in parts for k, v in part.items()}


def hint(field: str, fields: Collection[str], *, start: str = "") -> str:
  """Say which field may be meant, or which there are; `start` precedes it."""
  if f"{field}.name" in fields:
    return f"did you mean {start}{field}.name?"
  section, _, last = field.rpartition(".")
  inside = [k for k in fields if k.startswith(f"{section}.")]
  sections = {k[:i] for k in fields for i in dots(k)}
  if section and not difflib.get_close_matches(section, sections, n=1):
    return f"this method, data set or network has no section {section}"
  names = {k: k.rpartition(".")[2] for k in inside or fields}
  closest = functools.partial(difflib.get_close_matches, n=len(names))
  alike = closest(last, names.values(), cutoff=0.75)
  meant = [k for k, name in names.items() if name in alike]
  if near := closest(field, meant, cutoff=0.0):
    return f"did you mean {start}{near[0]}?"
  return f"there are {', '.join(names)}"


def dots(field: str) -> list[int]:
  """Return where the dots of a field are."""
  return [i for i, letter in enumerate(field) if letter == "."]
