"""Configs: every field there is, and how a config is kept in a workdir.

The only library file that knows ml_collections. The options of a loss, a flow
map or a network are taken from their signatures: the code is the schema.
"""

import difflib
import importlib.util
import inspect
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_dict, config_flags

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
  "mesh.",
  "sample.",
  "teacher.workdir",
  "train.log_every",
  "train.max_skipped",
  "train.sample_every",
  "train.steps",
  "train.steps_per_dispatch",
)

# Without these a config.json is none of ours.
_SECTIONS = ("method", "data", "path", "model", "loss", "train", "sample")

# How a command line writes a value of a type.
_WRITTEN = {
  bool: "True or False",
  int: "a whole number",
  float: "a number",
  tuple: "whole numbers with commas between",
}


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
        "ema": "sampling",
        "grid": {"name": "uniform"},
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
  old, new = _flat(saved.to_dict()), _flat(config.to_dict())
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


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
  if not isinstance(values, dict):
    return {prefix: list(values) if isinstance(values, tuple) else values}
  parts = (
    _flat(v, f"{prefix}.{k}" if prefix else k) for k, v in values.items()
  )
  return {k: v for part in parts for k, v in part.items()}


def parse(arguments: list[str], values: flags.FlagValues) -> Config:
  """Parse `--config=FILE.py:METHOD`, its overrides and the flags in `values`.

  Args:
    arguments: The command line after the command.
    values: Where other flags are defined; parsed in place.

  Returns:
    The config with its overrides, locked.

  Raises:
    UsageError: If the file, a field or a value is wrong.
  """
  chosen = [a for a in arguments if a.split("=")[0] == "--config"]
  if not chosen or "=" not in chosen[-1]:
    raise UsageError(
      "--config is missing: give a file and a method, "
      "--config=configs/digits.py:mean_flow"
    )
  config = load_file(chosen[-1].split("=", 1)[1])
  rest = [a for a in arguments if a.split("=")[0] != "--config"]
  fields = _flat(config.to_dict())
  for argument in rest:
    name, _, value = argument.partition("=")
    field = name.removeprefix("--config.")
    if field == name:
      continue
    if field not in fields:
      raise UsageError(_unknown_field(field, fields))
    if not value:
      raise UsageError(f"{name} has no value: write {name}=VALUE")
  argv = ["jaxflow", *rest]
  try:
    config_flags.DEFINE_config_dict(
      "config", config, flag_values=values, sys_argv=argv
    )
    extra = values(argv)
  except (flags.Error, TypeError, ValueError) as error:
    raise UsageError(_wrong_value(str(error), rest, fields)) from error
  if len(extra) > 1:
    raise UsageError(f"{extra[1]!r} is no flag: write --name=value")
  _check_tuples(fields, _flat(config.to_dict()))
  return config.lock()


def _unknown_field(field: str, fields: dict[str, Any]) -> str:
  near = difflib.get_close_matches(field, fields, n=1)
  if near:
    hint = f"did you mean --config.{near[0]}?"
  else:
    section = f"{field.split('.')[0]}."
    inside = [k for k in fields if k.startswith(section)] or fields
    hint = f"there are {', '.join(inside)}"
  return f"--config.{field} is no field of the config: {hint}"


def _wrong_value(error: str, given: list[str], fields: dict[str, Any]) -> str:
  """Say what kind of value a field takes, where absl names the flag."""
  for argument in given:
    name, _, value = argument.partition("=")
    field = name.removeprefix("--config.")
    if field in fields and f"{name}={value}" in error:
      old = fields[field]
      kind = _WRITTEN.get(tuple if isinstance(old, list) else type(old), "text")
      return f"{name}={value}: give {kind}, {_written(old)} for instance"
  return f"{error} (--help tells the flags)"


def _written(value: Any) -> str:
  return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def load_file(name: str) -> Config:
  """Call `get_config` of `FILE.py:METHOD`.

  Args:
    name: Path of the file and, behind a colon, the method.

  Returns:
    The config, not locked.

  Raises:
    UsageError: If there is no such file, or it has no such config.
  """
  path, _, method = name.partition(":")
  if not pathlib.Path(path).is_file():
    raise UsageError(
      f"--config={name}: there is no file {path!r}; give a config file, "
      "configs/digits.py:mean_flow for instance"
    )
  if not method:
    raise UsageError(
      f"--config={name}: name a method behind the file, {path}:mean_flow for "
      f"instance; there are {', '.join(METHODS)}"
    )
  specification = importlib.util.spec_from_file_location("config", path)
  if specification is None or specification.loader is None:
    raise UsageError(f"--config={name}: {path!r} is no Python file")
  module = importlib.util.module_from_spec(specification)
  try:
    specification.loader.exec_module(module)
    config = module.get_config(method)
  except UsageError:
    raise
  except Exception as error:  # The file is the user's: it may raise anything.
    raise UsageError(
      f"--config={name}: {path!r} raises {type(error).__name__} ({error}): "
      "correct the file; --debug shows where"
    ) from error
  if not isinstance(config, ConfigDict):
    raise UsageError(
      f"--config={name}: get_config of {path!r} returns {type(config).__name__}"
      ": return what jaxflow.config.default_config makes"
    )
  return config


def _check_tuples(before: dict[str, Any], after: dict[str, Any]) -> None:
  """A scalar given to a tuple field silently becomes a tuple of one."""
  for field, old in before.items():
    new = after[field]
    if not isinstance(old, list):
      continue
    count = len(old) if field == "loss.block" else max(len(new), 1)
    if len(new) != count or not all(isinstance(x, int) for x in new):
      raise UsageError(
        f"--config.{field}={_written(new)}: give {count} whole number(s) with "
        f"commas between, {_written(old)} for instance"
      )
