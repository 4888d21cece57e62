"""Flags of commands: defined, read, and refused in one line."""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from absl import flags

from jaxflow import config_files
from jaxflow.commands import sweeps
from jaxflow.commands.command import Command, Flag, Values
from jaxflow.config import fields as config_fields
from jaxflow.errors import UsageError

# Config fields are read from the arguments: they are known with the config.
_FIELD = "config.FIELD"
_CONFIG = (
  Flag(
    "config",
    "NAME:METHOD, with a name of `jaxflow presets`: digits:mean_flow; or "
    "FILE.py:METHOD",
  ),
  Flag(
    _FIELD,
    "overrides one field of the config: --config.train.steps=500; "
    'print(jaxflow.preset("digits:mean_flow")) in Python lists all fields',
  ),
)

# Flags that take a folder or a file.
PATHS = {
  *("workdir", "out", "teacher", "autoencoder", "file", "labels_file"),
  *("raw_dir", "data_dir", "dir", "cond_file"),
}

# Expected values of a flag, by the name of its kind.
_WANTED = {
  "bool": "true or false",
  "checkpoint": "a whole number, or best",
  "float": "a number",
  "int": "a whole number",
  "numbers": "whole numbers, --{name}=1,2,4 for instance",
}


class _Parser(flags.ArgumentParser):
  """Reads values of one kind."""

  def __init__(self, kind: Callable[[str], Any]):
    self._kind = kind

  def parse(self, argument: str) -> Any:
    """Return the value; raise ValueError if the text is none."""
    return self._kind(argument)

  def flag_type(self) -> str:
    """Return the name of the kind."""
    return self._kind.__name__


def define(given: Iterable[Flag], values: Values) -> None:
  """Define flags, in the order in which the help lists them."""
  for flag in given:
    kind = flag.kind or (str if flag.default is None else type(flag.default))
    told = flag.name, flag.default, flag.help
    if kind is bool:
      flags.DEFINE_boolean(*told, flag_values=values)
    else:
      flags.DEFINE(_Parser(kind), *told, flag_values=values)


def defined(command: Command) -> Values:
  """Return the flags of a command, with their help, before they are read."""
  given = [*(_CONFIG if command.takes_config else ()), *command.flags]
  for options in command.options():
    for field in dataclasses.fields(options):
      given.append(Flag(field.name, field.metadata["help"], field.default))
  if command.changes:
    text = (
      "overrides one field of the run's config, in "
      f"{', '.join(command.changes)}: --config.sample.guidance=2"
    )
    given.append(Flag(_FIELD, text))
  values = Values()
  define(given, values)
  return values


def options_of(options: type[Any], values: Values) -> Any:
  """Return a dataclass of `Command.options` with the values of its flags."""
  names = [field.name for field in dataclasses.fields(options)]
  return options(**{name: values[name].value for name in names})


def read(
  command: Command, values: Values, arguments: Sequence[str]
) -> list[str]:
  """Read the flags of a command into `values`, before JAX is loaded.

  Returns:
    The arguments `--config` and `--config.FIELD`, for `config_of`. What is
    mistyped in them is found here, but for options of components.

  Raises:
    UsageError: If a flag is unknown, has a wrong value, or is missing.
  """
  given = _with_values(arguments, values)
  if command.takes_config:
    config_files.check(config_files.chosen(given))
  for name in ("config", _FIELD):
    if name in values:
      delattr(values, name)
  _check_fixed(command, given)
  takes = command.takes_config or command.changes
  changes = [x for x in given if takes and re.match(r"--config([=.]|$)", x)]
  _read_plain([x for x in given if x not in changes], values)
  if command.takes_config:
    sweep = _sweep_of(values)
    swept = [] if sweep is None else sweeps.arguments(sweep)
    fields = [x for x in changes if x.startswith("--config.")]
    config_fields.check([*fields, *swept])
  _finish(command, values)
  return changes


def _sweep_of(values: Values) -> str | None:
  """Return the text of --sweep; None without, or where there is no such."""
  return values.sweep if "sweep" in values else None


def config_of(command: Command, values: Values, changes: Sequence[str]) -> Any:
  """Return the config of a command, or None, from what `read` returns.

  Raises:
    UsageError: If a field is unknown, or has a wrong value.
  """
  if command.takes_config:
    from jaxflow.config.flags import parse

    sweep = _sweep_of(values)
    return parse(changes) if sweep is None else sweeps.configs(changes, sweep)
  if not changes:
    return None
  from jaxflow.config import config_of_run

  return config_of_run(pathlib.Path(values.workdir), changes, command.changes)


def underscored(argument: str) -> str:
  """Return an argument in which `--a-name` has become `--a_name`."""
  if not argument.startswith("--") or argument.startswith("--config"):
    return argument
  flag, *value = argument.split("=", 1)
  return "=".join(["--" + flag[2:].replace("-", "_"), *value])


def _with_values(arguments: Sequence[str], values: Values) -> list[str]:
  """Return arguments in which `--name value` has become `--name=value`."""
  joined, rest = [], list(arguments)
  while rest:
    argument = rest.pop(0)
    name = argument.removeprefix("--")
    takes = name.partition(".")[0] == "config" or _takes_value(name, values)
    if name != argument and takes and rest and not rest[0].startswith("--"):
      argument = f"{argument}={rest.pop(0)}"
    joined.append(argument)
  return joined


def _takes_value(name: str, values: Values) -> bool:
  """Return whether a name alone, without a value, is no whole flag."""
  return name in values and values[name].flag_type() != "bool"


def _read_plain(arguments: list[str], values: Values) -> None:
  """Read flags that are all defined."""
  for argument in arguments:
    if _takes_value(argument.removeprefix("--"), values):
      raise UsageError(f"{argument} has no value: write {argument}=VALUE")
  try:
    rest = values(["jaxflow", *arguments])
  except flags.Error as error:
    raise UsageError(message(error, values)) from error
  if len(rest) > 1:
    raise UsageError(f"{rest[1]!r} is no flag: write --name=value")


def message(error: flags.Error, values: Values) -> str:
  """Return in our words why absl refuses a flag."""
  if not isinstance(error, flags.IllegalFlagValueError):
    return f"{error} (--help lists the flags)"
  # absl: "flag --num=x: invalid literal for int() with base 10: 'x'".
  given = str(error).removeprefix("flag ").split(": ")[0]
  name = given.removeprefix("--").split("=")[0]
  wanted = _WANTED[values[name].flag_type()].format(name=name)
  return f"{given}: give {wanted}"


def _check_fixed(command: Command, arguments: Sequence[str]) -> None:
  """Raise UsageError if a flag changes a field that the command sets."""
  for argument in arguments:
    flag = argument.partition("=")[0]
    field = flag.removeprefix("--config.")
    if any(f"{field}.".startswith(f"{name}.") for name in command.fixed):
      raise UsageError(f"{flag}: this command sets it; leave it out")


def _finish(command: Command, values: Values) -> None:
  """Raise UsageError if a flag is missing; expand those that are paths."""
  for name, placeholder in command.required.items():
    if not values[name].value:
      # The first clause, without the explanation behind.
      wanted = re.split(r"[:;(]", values[name].help)[0].strip()
      raise UsageError(
        f"--{name} is missing: give {wanted}, --{name}={placeholder}"
      )
  for name in PATHS & {*values}:
    from jaxflow.files import expanded

    values[name].value = expanded(f"--{name}", values[name].value)


def check_writable(out: pathlib.Path) -> None:
  """Try before long work whether a file can be written."""
  from jaxflow.files import probe

  try:
    probe(out)
  except OSError as error:
    raise UsageError(
      f"--out={out} cannot be written ({error.strerror}): give another file, "
      "make room, or make its folder writable"
    ) from error


def picture_target(
  out: pathlib.Path, uint8: bool, files: Sequence[str]
) -> bool:
  """Return whether pictures are wanted, by --uint8 or a folder as --out.

  A name without a suffix is a folder. `files` are the suffixes that there may
  be without that.
  """
  folder = not out.suffix or (out.is_dir() and out.suffix not in files)
  allowed = (".npz",) if uint8 else files
  if not folder and out.suffix not in allowed:
    what = " or ".join(allowed)
    extra = " with --uint8" if uint8 else ""
    raise UsageError(
      f"--out={out}: give a file that ends in {what}{extra}, or a folder, a "
      "name without a dot"
    )
  return folder or uint8
