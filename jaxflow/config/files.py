"""How a workdir keeps its config, and what may change in it."""

import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from jaxflow.config.components import Config
from jaxflow.errors import UsageError
from jaxflow.files import replace_file

# What may change between two runs in one workdir: none of it is in the state.
MUTABLE = (
  "checkpoint.",
  "data.data_dir",
  "data.download",
  # The digest says which pairs they are.
  "data.pairs",
  "data.ram_gib",
  "data.raw_dir",
  "data.threads",
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

# Fields that a message names, of those that have changed.
_LISTED = 8

# Without these a config.json is none of ours.
_SECTIONS = ("method", "data", "path", "model", "loss", "train", "sample")


def save_config(config: Config, path: pathlib.Path) -> None:
  """Write a config as JSON, replacing the file in one step."""
  text = json.dumps(config.to_dict(), indent=2) + "\n"
  replace_file(path, lambda draft: draft.write_text(text))


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
    listed = [
      f"{k}={old.get(k)!r}, not {new.get(k)!r}" for k in changed[:_LISTED]
    ]
    rest = len(changed) - len(listed)
    more = f"; and {rest} more fields" if rest else ""
    raise UsageError(
      f"--workdir={workdir} was made with {'; '.join(listed)}{more}: give "
      f"another --workdir, or the old value{'s' * (len(changed) > 1)}"
    )


def sampling_of(config: Config) -> dict[str, Any]:
  """Return how samples are drawn, whatever their number and the average.

  Args:
    config: The config of a run.

  Returns:
    Its sections `sample`, without `nfe`, `batch_size` and `ema`, and
    `flow_map`, as JSON gives them back.

  Example:
    >>> from jaxflow.config import default_config
    >>> config = default_config("flow_matching", data="ring", model="mlp")
    >>> sampling_of(config)["flow_map"]
    {'name': 'ode_step', 'solver': {'name': 'euler'}}
  """
  sections = {k: config[k].to_dict() for k in ("sample", "flow_map")}
  for name in ("nfe", "batch_size", "ema"):
    del sections["sample"][name]
  return json.loads(json.dumps(sections))


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
