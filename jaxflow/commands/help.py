"""The text of `--help`, made of the descriptions of commands and flags."""

import textwrap
from collections.abc import Mapping

from jaxflow.commands.command import Command, Values
from jaxflow.commands.flags import defined

_WIDTH = 80
# Where the text of a row begins, at most.
_COLUMN = 18


def overview(commands: Mapping[str, Command], common: Values) -> str:
  """Return the help of the program, with the flags that all commands take."""
  summaries = {name: command.summary for name, command in commands.items()}
  return "\n".join(
    [
      "usage: jaxflow COMMAND [--FLAG=VALUE ...]",
      "",
      *_rows(summaries),
      "",
      "jaxflow COMMAND --help lists the flags of a command. All commands take",
      "",
      *_rows(_texts(common)),
    ]
  )


def help_of(name: str, command: Command) -> str:
  """Return the help of a command."""
  values = defined(command)
  summary = f"{command.summary[0].upper()}{command.summary[1:]}."
  lines = [*_usage(name, command, values), "", *_wrapped(summary)]
  if len(values):
    lines += ["", *_rows(_texts(values))]
  for note in command.notes.split("\n\n") if command.notes else ():
    lines += ["", *_wrapped(note)]
  return "\n".join([*lines, "", "example:", f"  {command.example}"])


def _usage(name: str, command: Command, values: Values) -> list[str]:
  """Return the lines that show how a command is called."""
  start = f"usage: jaxflow {name}"
  words = ["--config=CONFIG:METHOD"] if command.takes_config else []
  words += [f"--{flag}={value}" for flag, value in command.required.items()]
  if set(values) - {"config", "config.FIELD", *command.required}:
    words.append("[--FLAG=VALUE ...]")
  if command.takes_config or command.changes:
    words.append("[--config.FIELD=VALUE ...]")
  # Words with blanks inside stay whole.
  lines = textwrap.wrap(
    " ".join(word.replace(" ", "\0") for word in words),
    _WIDTH,
    initial_indent=f"{start} ",
    subsequent_indent=" " * (len(start) + 1),
    break_on_hyphens=False,
  )
  return [line.replace("\0", " ") for line in lines or [start]]


def _texts(values: Values) -> dict[str, str]:
  """Return the help of flags, and their defaults, by how they are written."""
  found = {}
  for name in values:
    text, default = values[name].help, values[name].default
    untold = default is None or default is False or default == ""
    if "(default" not in text and not untold:
      text += f" (default {default})"
    found[f"--{name}=VALUE" if "." in name else f"--{name}"] = text
  return found


def _rows(texts: Mapping[str, str]) -> list[str]:
  """Return a table of names and descriptions."""
  column = min(max(map(len, texts)) + 4, _COLUMN)
  lines = []
  for name, text in texts.items():
    wrapped = _wrapped(text, _WIDTH - column)
    fits = len(name) + 4 <= column
    lines.append(
      f"  {name:{column - 2}}{wrapped.pop(0)}" if fits else f"  {name}"
    )
    lines += [" " * column + line for line in wrapped]
  return lines


def _wrapped(text: str, width: int = _WIDTH) -> list[str]:
  return textwrap.wrap(text, width, break_on_hyphens=False)
