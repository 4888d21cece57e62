"""Flags of commands: defined, read, and refused in one line."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from jaxflow.errors import UsageError

# What of a run's config may be changed when it is sampled from.
SAMPLING = ("sample", "flow_map")

# What a flag takes, by what absl calls its type.
_WANTED = {
  "bool": "true or false",
  "float": "a number",
  "int": "a whole number",
}


def define(options: type[Any], values: flags.FlagValues) -> Callable[[], Any]:
  """Define a flag for each field of a dataclass; return what makes it."""
  define = {
    bool: flags.DEFINE_boolean,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
  }
  fields = dataclasses.fields(options)
  for field in fields:
    kind = define.get(type(field.default), flags.DEFINE_string)
    kind(field.name, field.default, "", flag_values=values)
  return lambda: options(**{f.name: values[f.name].value for f in fields})


def read(arguments: list[str], values: flags.FlagValues) -> None:
  """Read flags of a command that takes no config."""
  try:
    rest = values(["jaxflow", *arguments])
  except flags.IllegalFlagValueError as error:
    # absl: "flag --num=x: invalid literal for int() with base 10: 'x'".
    given = str(error).removeprefix("flag ").split(": ")[0]
    name = given.removeprefix("--").split("=")[0]
    wanted = _WANTED[values[name].flag_type()]
    raise UsageError(f"{given}: give {wanted}") from error
  except flags.Error as error:
    raise UsageError(f"{error} (--help lists the flags)") from error
  if len(rest) > 1:
    raise UsageError(f"{rest[1]!r} is no flag: write --name=value")


def required(value: str | None, name: str, what: str) -> str:
  """Return the value of a flag that must be given."""
  if not value:
    raise UsageError(f"--{name} is missing: give {what}, --{name}=...")
  return value


def whole_numbers(given: Sequence[str], name: str) -> tuple[int, ...]:
  """Return the numbers of a flag that takes several."""
  try:
    return tuple(int(number) for number in given)
  except ValueError as error:
    raise UsageError(
      f"--{name}={','.join(given)}: give whole numbers, --{name}=1,2,4 for "
      "instance"
    ) from error


def read_changes(arguments: list[str], values: flags.FlagValues) -> list[str]:
  """Read flags of a command on a run; return its `--config.FIELD=VALUE`."""
  changes = [a for a in arguments if a.startswith("--config")]
  read([a for a in arguments if a not in changes], values)
  return changes


def changed_config(
  workdir: pathlib.Path, changes: list[str], sections: tuple[str, ...]
) -> Any:
  """Return the config of a run with changes of the command line, or None."""
  from jaxflow.config.flags import config_of_run

  return config_of_run(workdir, changes, sections) if changes else None


def step_of(given: str | None) -> int | str | None:
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
