"""The command line: `jaxflow train | pairs | encode | sample | ...`."""

import sys
from collections.abc import Sequence

from absl import logging

from jaxflow.cli import draw, fill, judge, show
from jaxflow.cli_help import HELP
from jaxflow.commands.console import print_line
from jaxflow.errors import RunError, UsageError

# Commands that save and return where others would be ended.
INTERRUPTIBLE = ("train", "pairs", "rectify", "encode")
# Of the others, those that keep what they have done.
RESUMABLE = ("evaluate", "stats")
# Commands that have no use for other processes.
ALONE = ("compile", "methods")

COMMANDS = {
  "train": fill.train,
  "sample": draw.sample,
  "evaluate": judge.evaluate,
  "stats": judge.stats,
  "bench": draw.bench,
  "report": draw.report,
  "pairs": fill.pairs,
  "rectify": fill.rectify,
  "encode": fill.encode,
  "compile": show.compile,
  "methods": show.methods,
}


def main() -> None:
  """Run the command line and exit with its code."""
  sys.exit(run(sys.argv))


def run(argv: Sequence[str]) -> int:
  """Run one command.

  Args:
    argv: Program name, command and flags.

  Returns:
    0, 1 for a failure, 2 for wrong usage, 130 where Ctrl-C came before there
    was anything to save.
  """
  arguments = list(argv[1:])
  debug = "--debug" in arguments
  arguments = [a for a in arguments if a != "--debug"]
  distributed = [a for a in arguments if a.startswith("--distributed=")]
  arguments = [a for a in arguments if a not in distributed]
  command = arguments[0] if arguments else "--help"
  if command in ("--help", "-h", "help"):
    print_line(HELP[""])
    return 0 if arguments else 2
  # Libraries warn of what a user can do nothing about; our warnings do not
  # pass through absl.
  logging.set_verbosity(logging.ERROR)
  try:
    if command not in COMMANDS:
      from jaxflow.config.registry import choose

      choose("command", command, COMMANDS)
    if {"--help", "-h"} & set(arguments):
      print_line(HELP[command])
      return 0
    _join(distributed, command)
    return COMMANDS[command](arguments[1:])
  except KeyboardInterrupt:
    if debug:
      raise
    more = "; the same command goes on" if command in RESUMABLE else ""
    print(f"jaxflow {command}: interrupted{more}", file=sys.stderr)
    return _left(130)
  except Exception as error:
    if debug:
      raise
    kind = (
      ""
      if isinstance(error, UsageError | RunError)
      else (f"{type(error).__name__}: ")
    )
    text = " ".join(str(error).split())
    more = "" if not kind else " (--debug shows where)"
    print(f"jaxflow {command}: {kind}{text}{more}", file=sys.stderr)
    return _left(2 if isinstance(error, UsageError) else 1)


def _left(code: int) -> int:
  """Return an exit code; in a job, end with it at once."""
  from jaxflow.parallel import launch

  launch.leave(code)
  return code


def _join(given: list[str], command: str) -> None:
  """Join the processes of a job, as `--distributed` says."""
  from jaxflow.parallel import launch

  mode = given[-1].split("=", 1)[1] if given else "auto"
  if command in ALONE and mode == "auto":
    mode = "off"
  launch.join(mode, preemptible=command in INTERRUPTIBLE)
