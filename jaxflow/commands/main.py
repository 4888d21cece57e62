"""Runs the command line: `jaxflow train | pairs | encode | sample | ...`."""

import gc
import importlib
import logging
import sys
from collections.abc import Sequence

from absl import flags
from absl import logging as absl_logging

import jaxflow
from jaxflow import plugins
from jaxflow.commands import interrupts
from jaxflow.commands.command import Command, Flag, Values
from jaxflow.commands.console import log
from jaxflow.commands.flags import (
  config_of,
  define,
  defined,
  message,
  read,
  underscored,
)
from jaxflow.commands.help import help_of, overview
from jaxflow.errors import RunError, UsageError, named, unknown

# Each is a module of this folder; it imports heavy packages when it runs.
COMMANDS = (
  *("train", "sample", "evaluate", "stats", "bench", "report", "compare"),
  *(
    "pairs",
    "rectify",
    "encode",
    "import",
    "export",
    "serve",
    "merge",
    "compile",
    "methods",
  ),
  "presets",
)

# Flags that all commands take.
_COMMON = (
  Flag(
    "compile_cache",
    "a folder for compiled programs, auto (that of the user) or off",
    "auto",
  ),
  Flag("debug", "show the traceback of an error", False),
  Flag(
    "distributed",
    "on, off or auto: whether to join the other processes of a job, which run "
    "the same command; auto joins in Slurm, Open MPI, on TPU pods, and where "
    "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID are set",
    "auto",
  ),
  Flag(
    "plugins",
    "packages, names or paths, whose code configs may name and run",
    "",
  ),
  Flag("version", "print the version", False),
)

# Where a value comes from, if not from a flag, by the name that the library
# gives it.
_FIELDS = {
  "ema": "sample.ema",
  "grid": "sample.grid",
  "guidance": "sample.guidance",
  "nfe": "sample.nfe",
  "prediction": "loss.prediction",
  "sampler": "sample.sampler",
  "solver": "flow_map.solver",
}


def run(argv: Sequence[str]) -> int:
  """Run one command line, the program's name first; return its exit code.

  It is 1 for a failure, 2 for wrong usage, 130 where Ctrl-C came before there
  was anything to save.
  """
  common = Values()
  # They may stand anywhere, before the command as well.
  common.set_gnu_getopt(True)
  define(_COMMON, common)
  try:
    arguments = common([underscored(x) for x in argv], known_only=True)[1:]
  except flags.Error as error:
    print(f"jaxflow: {message(error, common)}", file=sys.stderr)
    return 2
  if common.version:
    log(jaxflow.__version__)
    return 0
  name = arguments[0] if arguments else "--help"
  if name in ("--help", "-h", "help"):
    commands = {name: command_of(name) for name in COMMANDS}
    log(overview(commands, common))
    return 0 if arguments else 2
  # Users can do nothing about warnings of libraries, which pass through absl.
  # Ours are one plain line, also where a library has set up logging.
  absl_logging.set_verbosity(absl_logging.ERROR)
  logging.basicConfig(format="%(message)s")
  resumable = False
  try:
    with named(plugins="--plugins"):
      plugins.allow(common.plugins)
    command = command_of(name)
    resumable = command.resumable
    if {"--help", "-h"} & set(arguments):
      log(help_of(name, command))
      return 0
    return _run(command, arguments[1:], common)
  except KeyboardInterrupt:
    if common.debug:
      raise
    more = "; the same command goes on" if resumable else ""
    interrupts.SAID.set()
    print(f"jaxflow {name}: interrupted{more}", file=sys.stderr)
    return _left(130)
  except Exception as error:
    if common.debug:
      raise
    expected = isinstance(error, UsageError | RunError)
    kind = "" if expected else f"{type(error).__name__}: "
    text = " ".join(str(error).split())
    more = "" if expected else " (--debug shows where)"
    print(f"jaxflow {name}: {kind}{text}{more}", file=sys.stderr)
    return _left(2 if isinstance(error, UsageError) else 1)


def command_of(name: str) -> Command:
  """Return a command; raise UsageError if there is none of that name."""
  if name not in COMMANDS:
    raise unknown("command", name, COMMANDS)
  return importlib.import_module(f"jaxflow.commands.{name}").COMMAND


def _run(command: Command, arguments: Sequence[str], common: Values) -> int:
  """Read flags, join the other processes of a job, and run a command."""
  values = defined(command)
  names = _FIELDS | {name: f"--{name}" for name in values}
  with named(**names):
    changes = read(command, values, arguments)
    if not (command.alone and common.distributed == "auto"):
      from jaxflow.parallel import launch

      launch.join(common.distributed, preemptible=command.interruptible)
    config = config_of(command, values, changes)
    if not command.alone:
      importlib.import_module("jaxflow.api")
      from jaxflow.parallel import compile_cache

      compile_cache.begin(common.compile_cache, log=log)
    if not gc.isenabled():  # The program's start leaves that to the command.
      gc.freeze()
      gc.enable()
    interrupts.begin()
    return command.run(values, config) or 0


def _left(code: int) -> int:
  """Return an exit code; in a job, end with it at once."""
  if "jax" in sys.modules:  # Nothing else can have joined one.
    from jaxflow.parallel import launch

    launch.leave(code)
  return code
