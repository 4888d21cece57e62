"""The config of a command line: a config file, and overrides of its fields."""

import difflib
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from jaxflow import config_files
from jaxflow.config import fields as config_fields
from jaxflow.config.components import (
  Config,
  at,
  complete,
  components,
  losses,
  set_component,
)
from jaxflow.config.fields import flatten, hint, written
from jaxflow.config.files import load_config
from jaxflow.config.presets import load_file
from jaxflow.config.registry import left_out, maker_of
from jaxflow.config.schema import INTERFACE
from jaxflow.errors import UsageError
from jaxflow.options import parameters


def parse(arguments: Sequence[str]) -> Config:
  """Return the locked config of `--config=CONFIG:METHOD` and its overrides."""
  config = load_file(config_files.chosen(arguments))
  rest = [a for a in arguments if a.split("=")[0] != "--config"]
  return _override(config, rest)


def config_of_run(
  workdir: pathlib.Path,
  given: Sequence[str] = (),
  sections: tuple[str, ...] = (),
) -> Config:
  """Return the locked config of a run, with the overrides of a command line.

  Fields that are newer than the run have their defaults. The overrides
  `--config.FIELD=VALUE` may change the given sections and fields alone.
  """
  for argument in given:
    field = argument.partition("=")[0].removeprefix("--config").lstrip(".")
    if not any(f"{field}.".startswith(f"{name}.") for name in sections):
      raise UsageError(
        f"{argument.partition('=')[0]}: a run keeps its config but for "
        f"{', '.join(sections)}; leave it out"
      )
  config = load_config(workdir)
  config.unlock()
  return _override(config, list(given))


def _override(config: Config, rest: list[str]) -> Config:
  """Change the fields of a config that arguments name; return it locked."""
  _take_components(config, rest)
  fields = flatten(config.to_dict())
  for argument in rest:
    name, _, value = argument.partition("=")
    field = name.removeprefix("--config.")
    if field == "method.name":
      raise UsageError(f"{name}={value}: give --config=NAME:{value}")
    if field not in fields:
      meant = hint(field, fields, start="--config.")
      raise UsageError(config_fields.absent(name, meant))
    if field == "data.stored_dir":
      raise UsageError(f"{name}: a run notes it; give --config.data.data_dir")
    if not value and not ("=" in argument and isinstance(fields[field], str)):
      raise UsageError(f"{name} has no value: write {name}=VALUE")
    if field == "method" and value != config.method:
      raise UsageError(f"{name}={value}: give --config=NAME:{value}")
  argv = ["jaxflow", *rest]
  try:
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict(
      "config", config, flag_values=values, sys_argv=argv
    )
    values(argv)
  except (flags.Error, TypeError, ValueError) as error:
    raise UsageError(_wrong_value(str(error), rest, fields)) from error
  _check_tuples(fields, flatten(config.to_dict()))
  return config.lock()


def _take_components(config: Config, arguments: list[str]) -> None:
  """Replace the components that are named, so that their options are fields.

  The options of one that goes go with it; those of the others get their
  defaults. A new name in `ema`, unlike those there are, is a new average. A
  loss may have laws that are in no config before they are named.
  """
  complete(config)
  for argument in arguments:
    name, _, value = argument.partition("=")
    field, _, last = name.removeprefix("--config.").rpartition(".")
    kind = components(config).get(field)
    if kind is None and last == "name" and _is_new_average(field, config):
      set_component(config, field, {"name": None})
      kind = "ema"
    section, _, option = field.rpartition(".")
    if kind is None and last == "name" and section == "loss":
      kind = left_out(losses(config)[section]).get(option)
      if kind is not None:
        set_component(config, field, {"name": None})
    if last != "name" or kind is None or value == at(config, field).name:
      continue
    maker = maker_of(kind, value, field=field)  # Raises where there is none.
    kept = {}
    if kind == "model":
      # Options of any network that methods set.
      takes = parameters(maker)
      kept = {
        k: v
        for k, v in config.model.items()
        if k in INTERFACE and (k in takes or v not in (False, 1))
      }
    set_component(config, field, {"name": value, **kept})
    complete(config)


def _is_new_average(field: str, config: Config) -> bool:
  """Return whether a field may be a further average, `ema.NAME`."""
  section, _, name = field.partition(".")
  near = difflib.get_close_matches(name, [*config.ema, "online"], n=1)
  return section == "ema" and name.isidentifier() and not near


def _wrong_value(error: str, given: list[str], fields: dict[str, Any]) -> str:
  """Return a message with the type of a field, where absl names the flag."""
  for argument in given:
    name, _, value = argument.partition("=")
    field = name.removeprefix("--config.")
    if field in fields and f"{name}={value}" in error:
      return config_fields.wrong_value(name, value, fields[field])
  return f"{error} (--help tells the flags)"


def _check_tuples(before: dict[str, Any], after: dict[str, Any]) -> None:
  """Refuse a scalar for a tuple: it silently becomes a tuple of one."""
  for field, old in before.items():
    new = after[field]
    if not isinstance(old, list) or new == old:
      continue
    fixed = field == "loss.block"
    count = len(old) if fixed else max(len(new), 1)
    whole = all(isinstance(x, int) for x in old)
    kind = int if whole else int | float
    if len(new) != count or not all(isinstance(x, kind) for x in new):
      many = len(old) if fixed else "one or more"
      numbers = "whole numbers" if whole else "numbers"
      raise UsageError(
        f"--config.{field}={written(new)}: give {many} {numbers} with "
        f"commas between, {written(old)} for instance"
      )
