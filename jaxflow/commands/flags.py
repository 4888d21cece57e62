"""Flags of commands: defined, read, and refused in one line."""

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from absl import flags

from jaxflow.commands.command import Command
from jaxflow.errors import UsageError

__all__ = [
  "SAMPLING",
  "check_writable",
  "checkpoint",
  "define_options",
  "defined",
  "message",
  "options_of",
  "read",
  "whole_numbers",
]

# The sections of a config that decide how a trained run is sampled.
SAMPLING = ("sample", "flow_map")

_FIELD = "config.FIELD"

# Expected values by absl's name of a type.
_WANTED = {
  "bool": "true or false",
  "float": "a number",
  "int": "a whole number",
}


def defined(command: Command) -> flags.FlagValues:
  """Return the flags of a command, with their help, before they are read."""
  values = flags.FlagValues()
  if command.takes_config:
    flags.DEFINE_string(
      "config",
      None,
      "NAME:METHOD, with a name of `jaxflow presets`: digits:mean_flow; or "
      "FILE.py:METHOD",
      flag_values=values,
    )
    text = (
      "overrides one field of the config: --config.train.steps=500; "
      'print(jaxflow.preset("digits:mean_flow")) in Python lists all fields'
    )
    flags.DEFINE_string(_FIELD, None, text, flag_values=values)
  command.define(values)
  if command.changes:
    text = (
      "overrides one field of the run's config, in "
      f"{', '.join(command.changes)}: --config.sample.guidance=2"
    )
    flags.DEFINE_string(_FIELD, None, text, flag_values=values)
  return values


def read(
  command: Command, values: flags.FlagValues, arguments: Sequence[str]
) -> Any:
  """Read the flags of a command.

  Args:
    command: The command.
    values: Its flags, as `defined` returns them; read in place.
    arguments: The command line behind the command.

  Returns:
    The config that the command takes, or None.

  Raises:
    UsageError: If a flag is unknown, has a wrong value, or is missing.
  """
  # They are read from the arguments: fields are known with the config.
  for name in ("config", _FIELD):
    if name in values:
      delattr(values, name)
  given = _with_values(arguments, values)
  _check_fixed(command, given)
  if command.takes_config:
    from jaxflow.config.flags import parse

    config = parse(given, values)
    _check_required(command, values)
    return config
  changes = [x for x in given if command.changes and x.startswith("--config")]
  _read_plain([x for x in given if x not in changes], values)
  _check_required(command, values)
  if not changes:
    return None
  from jaxflow.config import config_of_run

  return config_of_run(pathlib.Path(values.workdir), changes, command.changes)


def _with_values(
  arguments: Sequence[str], values: flags.FlagValues
) -> list[str]:
  """Return arguments in which `--name value` has become `--name=value`."""
  joined, rest = [], list(arguments)
  while rest:
    argument = rest.pop(0)
    name = argument.removeprefix("--")
    takes = name.partition(".")[0] == "config" or (
      name in values and values[name].flag_type() != "bool"
    )
    if name != argument and takes and rest and not rest[0].startswith("--"):
      argument = f"{argument}={rest.pop(0)}"
    joined.append(argument)
  return joined


def _read_plain(arguments: list[str], values: flags.FlagValues) -> None:
  """Read flags that are all defined."""
  for argument in arguments:
    name = argument.removeprefix("--")
    if name in values and values[name].flag_type() != "bool":
      raise UsageError(f"{argument} has no value: write {argument}=VALUE")
  try:
    rest = values(["jaxflow", *arguments])
  except flags.Error as error:
    raise UsageError(message(error, values)) from error
  if len(rest) > 1:
    raise UsageError(f"{rest[1]!r} is no flag: write --name=value")


def message(error: flags.Error, values: flags.FlagValues) -> str:
  """Return in our words why absl refuses a flag."""
  if not isinstance(error, flags.IllegalFlagValueError):
    return f"{error} (--help lists the flags)"
  # absl: "flag --num=x: invalid literal for int() with base 10: 'x'".
  given = str(error).removeprefix("flag ").split(": ")[0]
  name = given.removeprefix("--").split("=")[0]
  return f"{given}: give {_WANTED[values[name].flag_type()]}"


def _check_fixed(command: Command, arguments: Sequence[str]) -> None:
  """Raise UsageError if a flag changes a field that the command sets."""
  for argument in arguments:
    flag = argument.partition("=")[0]
    field = flag.removeprefix("--config.")
    if any(f"{field}.".startswith(f"{name}.") for name in command.fixed):
      raise UsageError(f"{flag}: this command sets it; leave it out")


def _check_required(command: Command, values: flags.FlagValues) -> None:
  """Raise UsageError if a flag is missing."""
  for name, placeholder in command.required.items():
    if not values[name].value:
      # The first clause, without the explanation behind.
      wanted = re.split(r"[:;(]", values[name].help)[0].strip()
      raise UsageError(
        f"--{name} is missing: give {wanted}, --{name}={placeholder}"
      )


def define_options(options: type[Any], values: flags.FlagValues) -> None:
  """Define a flag for each field of a dataclass of `runs.options`."""
  kinds = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
  }
  for field in dataclasses.fields(options):
    define = kinds.get(type(field.default), flags.DEFINE_string)
    text = field.metadata["help"]
    define(field.name, field.default, text, flag_values=values)


def options_of(options: type[Any], values: flags.FlagValues) -> Any:
  """Return the dataclass that flags of `define_options` describe."""
  names = [field.name for field in dataclasses.fields(options)]
  return options(**{name: values[name].value for name in names})


def whole_numbers(values: flags.FlagValues, name: str) -> tuple[int, ...]:
  """Return the numbers of a flag that takes several."""
  given = values[name].value or []
  try:
    return tuple(int(number) for number in given)
  except ValueError as error:
    raise UsageError(
      f"--{name}={','.join(given)}: give whole numbers, --{name}=1,2,4 for "
      "instance"
    ) from error


def checkpoint(given: str | None) -> int | str | None:
  """Return the checkpoint that `--step` names."""
  if given is None or given == "best":
    return given
  try:
    return int(given)
  except ValueError as error:
    raise UsageError(f"--step={given}: give a whole number, or best") from error


def check_writable(out: pathlib.Path) -> None:
  """Try before long work whether a file can be written."""
  try:
    out.parent.mkdir(parents=True, exist_ok=True)
    existed = out.exists()
    out.open("ab").close()
    if not existed:
      out.unlink()
  except OSError as error:
    raise UsageError(
      f"--out={out} cannot be written ({error.strerror}): give another file, "
      "or make its folder writable"
    ) from error
