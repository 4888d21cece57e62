"""Configs: every field there is, and how a config is kept in a workdir.

The options of a loss, a flow
map or a network are taken from their signatures: the code is the schema.
"""

import inspect
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from jaxflow import registry
from jaxflow.errors import UsageError
from jaxflow.methods import METHODS

# A ConfigDict, whose attributes are dynamic.
Config = Any

# What may change between two runs in one workdir: none of it is in the state.
MUTABLE = (
  "checkpoint.",
  "data.data_dir",
  "data.raw_dir",
  "evaluation.",
  "flow_map.omega",
  "flow_map.t_end",
  "flow_map.t_start",
  "mesh.",
  "sample.",
  "train.log_every",
  "train.max_skipped",
  "train.sample_every",
  "train.steps",
  "train.steps_per_dispatch",
)

# Without these a config.json is none of ours.
_SECTIONS = ("method", "data", "path", "model", "loss", "train", "sample")


def default_config(method: str, *, data: str, model: str) -> Config:
  """Return the config of a method with every field set.

  Args:
    method: A key of METHODS.
    data: Name of a data set.
    model: Name of a network, "dit" or "mlp".

  Returns:
    An unlocked config; fields without a default are placeholders.

  Raises:
    UsageError: If the method or the network is unknown.

  Example:
    >>> config = default_config("mean_flow", data="ring", model="mlp")
    >>> config.loss.omega, config.times.name
    (1.0, 'sorted_pair')
  """
  row = registry.choose("method", method, METHODS)
  maker = registry.choose("model.name", model, registry.KINDS["model"])
  network = registry.default_options(maker)
  network.pop("num_classes", None)
  network.pop("data_shape", None)
  network["second_time"] = False
  loss = registry.default_options(row.loss)
  loss.pop("num_classes", None)
  config = ConfigDict(
    {
      "method": method,
      "seed": 0,
      "data": {
        "name": data,
        "raw_dir": config_dict.placeholder(str),
        "data_dir": config_dict.placeholder(str),
        "conditional": True,
        "shape": config_dict.placeholder(tuple),
        "num_classes": config_dict.placeholder(int),
      },
      "path": {"name": "linear"},
      "model": {"name": model, **network},
      "loss": loss,
      "flow_map": {
        "name": row.flow_map.__name__,
        **registry.default_options(row.flow_map),
      },
      "optimizer": {
        "name": "adam",
        "learning_rate": 1e-4,
        "schedule": "constant",
        "warmup_steps": 0,
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "clip_norm": 0.0,
      },
      "ema": {"sampling": {"name": "constant", "decay": 0.9999}},
      "teacher": {
        "workdir": "",
        "guidance": 1.0,
        "ema": "sampling",
        "init_student": True,
        "config": config_dict.placeholder(dict),
      },
      "train": {
        "steps": 10_000,
        "batch_size": 128,
        "accumulate": 1,
        "steps_per_dispatch": 25,
        "log_every": 100,
        "sample_every": 0,
        "max_skipped": 100,
      },
      "checkpoint": {"every": 1000, "keep": 3, "keep_every": 0},
      "mesh": {"data": -1, "fsdp": 1},
      "sample": {
        "nfe": 1,
        "guidance": 1.0,
        "guidance_start": config_dict.placeholder(float),
        "guidance_end": config_dict.placeholder(float),
        "ema": "sampling",
        "grid": {"name": "uniform"},
        "sampler": {"name": "default"},
      },
      "evaluation": {"nfe": (1, 2, 4), "draws": 4, "num": 2000},
    }
  )
  if "teacher" not in inspect.signature(row.loss).parameters:
    del config["teacher"]
  update(config, row.config)
  return config


def update(config: Config, fields: Mapping[str, Any]) -> None:
  """Set fields of a config, in place.

  A mapping sets the fields inside; one that names a component replaces the
  component as a whole, because the options of the old one go with it.

  Args:
    config: An unlocked config.
    fields: Values by name, nested like the config.

  Example:
    >>> config = default_config("mean_flow", data="ring", model="mlp")
    >>> update(config, {"times": {"law": {"name": "uniform"}}})
    >>> config.times.law.to_dict()
    {'name': 'uniform'}
  """
  for name, value in fields.items():
    if isinstance(value, Mapping) and name in config and "name" not in value:
      update(config[name], value)
    else:
      config[name] = value


def resolve(
  config: Config,
  *,
  shape: tuple[int, ...],
  num_classes: int,
  teacher: Config | None,
) -> Config:
  """Return the config with what the data and the teacher decide, locked."""
  config = ConfigDict(config.to_dict())
  with config.unlocked(), config.ignore_type():
    config.data.shape = shape
    config.data.num_classes = num_classes
    if teacher is not None:
      config.teacher.config = ConfigDict(teacher.to_dict())
  return config.lock()


def save_config(config: Config, path: pathlib.Path) -> None:
  """Write a config as JSON, replacing the file in one step."""
  part = path.with_suffix(".json.part")
  part.write_text(json.dumps(config.to_dict(), indent=2) + "\n")
  part.replace(path)


def load_config(workdir: pathlib.Path, *, field: str) -> Config:
  """Read the config of a workdir.

  Args:
    workdir: The folder of a run.
    field: The flag or config field that names it, for the message.

  Returns:
    The config, locked.

  Raises:
    UsageError: If the folder holds no run.
  """
  try:
    values = json.loads((workdir / "config.json").read_text())
    values["data"]["shape"] = tuple(values["data"]["shape"])
    config: Config = ConfigDict(values)
    absent = [name for name in _SECTIONS if name not in config]
    if absent:
      raise ValueError(f"{absent[0]!r} is absent")
    return config.lock()
  except (FileNotFoundError, NotADirectoryError) as error:
    raise UsageError(
      f"{field}={str(workdir)!r} holds no config.json: give the folder of a "
      "run that `jaxflow train` has made"
    ) from error
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UsageError(
      f"{field}={str(workdir)!r}: config.json cannot be read ({error}): "
      "restore it from a copy, or give another folder"
    ) from error


def check_same_run(saved: Config, config: Config, workdir: str) -> None:
  """Raise UsageError if a workdir was made with another config."""
  old, new = flatten(saved.to_dict()), flatten(config.to_dict())
  changed = [
    k
    for k in sorted(old.keys() | new.keys(), key=lambda k: (k != "method", k))
    if old.get(k) != new.get(k) and not _is_mutable(k)
  ]
  if changed:
    k = changed[0]
    more = f" and {len(changed) - 1} more fields" if len(changed) > 1 else ""
    raise UsageError(
      f"--workdir={workdir} was made with {k}={old.get(k)!r}, not "
      f"{new.get(k)!r}{more}: give another --workdir, or the old value"
    )


def _is_mutable(field: str) -> bool:
  return any(
    field.startswith(name) if name.endswith(".") else field == name
    for name in MUTABLE
  )


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
