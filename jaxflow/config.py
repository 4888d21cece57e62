"""Configs: every field there is, and how a config is kept in a workdir.

The only library file that knows ml_collections. The options of a loss, a flow
map or a network are taken from their signatures: the code is the schema.
"""

import importlib.util
import inspect
import json
import pathlib
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
)


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
  config.update(row.config)
  return config


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
  path = workdir / "config.json"
  if not path.is_file():
    raise UsageError(
      f"{field}={str(workdir)!r} holds no config.json: give the folder of a "
      "run that `jaxflow train` has made"
    )
  try:
    values = json.loads(path.read_text())
    config: Config = ConfigDict(values)
    config.data.shape = tuple(config.data.shape)
    return config.lock()
  except (ValueError, AttributeError, TypeError) as error:
    raise UsageError(
      f"{field}={str(workdir)!r}: config.json cannot be read ({error})"
    ) from error


def check_same_run(saved: Config, config: Config, workdir: str) -> None:
  """Raise UsageError if a workdir was made with another config."""
  old, new = _flat(saved.to_dict()), _flat(config.to_dict())
  changed = [
    k
    for k in sorted(old.keys() | new.keys())
    if old.get(k) != new.get(k) and not k.startswith(MUTABLE)
  ]
  if changed:
    k = changed[0]
    more = f" and {len(changed) - 1} more fields" if len(changed) > 1 else ""
    raise UsageError(
      f"--workdir={workdir} was made with {k}={old.get(k)!r}, not "
      f"{new.get(k)!r}{more}: give another --workdir, or the old value"
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
      registry.choose("--config", field, fields)
    if not value:
      raise UsageError(f"{name} has no value: write {name}=VALUE")
  argv = ["jaxflow", *rest]
  try:
    config_flags.DEFINE_config_dict(
      "config", config, flag_values=values, sys_argv=argv
    )
    extra = values(argv)
  except (flags.Error, TypeError, ValueError) as error:
    raise UsageError(f"{error}") from error
  if len(extra) > 1:
    raise UsageError(f"{extra[1]!r} is no flag: write --name=value")
  _check_lengths(fields, _flat(config.to_dict()))
  return config.lock()


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
  specification.loader.exec_module(module)
  return module.get_config(method)


def _check_lengths(before: dict[str, Any], after: dict[str, Any]) -> None:
  """A scalar given to a tuple field silently becomes a tuple of one."""
  for field in ("loss.block",):
    if field in before and len(after[field]) != len(before[field]):
      raise UsageError(
        f"--config.{field}={tuple(after[field])}: give "
        f"{len(before[field])} values, {tuple(before[field])} for instance"
      )
