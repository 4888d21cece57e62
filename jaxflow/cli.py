"""The command line: `jaxflow train | pairs | encode | sample | ...`."""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags, logging

from jaxflow.cli_help import HELP
from jaxflow.errors import RunError, UsageError


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
    _print(HELP[""])
    return 0 if arguments else 2
  # Libraries warn of what a user can do nothing about; our warnings do not
  # pass through absl.
  logging.set_verbosity(logging.ERROR)
  try:
    if command not in COMMANDS:
      from jaxflow.registry import choose

      choose("command", command, COMMANDS)
    if {"--help", "-h"} & set(arguments):
      _print(HELP[command])
      return 0
    _join(distributed, command)
    return COMMANDS[command](arguments[1:])
  except KeyboardInterrupt:
    if debug:
      raise
    print(f"jaxflow {command}: interrupted", file=sys.stderr)
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


def _say(text: str) -> None:
  """Print a line, once a job."""
  from jaxflow import processes

  if processes.is_main():
    _print(text)


def _print(text: str) -> None:
  """Print a line; a reader that has left (`| head`) stops nothing."""
  try:
    print(text, flush=True)
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _left(code: int) -> int:
  """Return an exit code; in a job, end with it at once."""
  from jaxflow import launch

  launch.leave(code)
  return code


def _join(given: list[str], command: str) -> None:
  """Join the processes of a job, as `--distributed` says."""
  from jaxflow import launch

  mode = given[-1].split("=", 1)[1] if given else "auto"
  if command in ALONE and mode == "auto":
    mode = "off"
  launch.join(mode, preemptible=command in INTERRUPTIBLE)


def _train(arguments: list[str]) -> int:
  from jaxflow.config.flags import parse

  values = flags.FlagValues()
  flags.DEFINE_string("workdir", None, "", flag_values=values)
  config = parse(arguments, values)
  workdir = _required(values.workdir, "workdir", "a folder for the run")

  from jaxflow import commands

  commands.train(config, pathlib.Path(workdir), say=_say)
  return 0


def _sample(arguments: list[str]) -> int:
  values = flags.FlagValues()
  for name, default in (("workdir", None), ("out", None)):
    flags.DEFINE_string(name, default, "", flag_values=values)
  for name, default in (("num", 64), ("nfe", 1), ("seed", 0)):
    flags.DEFINE_integer(name, default, "", flag_values=values)
  for name in ("label", "step"):
    flags.DEFINE_integer(name, None, "", flag_values=values)
  flags.DEFINE_boolean("latents", False, "", flag_values=values)
  _parse(arguments, values)
  workdir = _required(values.workdir, "workdir", "the folder of a run")
  out = pathlib.Path(_required(values.out, "out", "a .png or .npz file"))
  if out.suffix not in (".png", ".npz"):
    raise UsageError(f"--out={out}: give a file that ends in .png or .npz")
  if values.latents and out.suffix != ".npz":
    raise UsageError(f"--out={out}: --latents needs a file that ends in .npz")

  from jaxflow import commands, processes

  processes.once(lambda: _check_writable(out))
  samples, labels = commands.sample(
    pathlib.Path(workdir),
    num=values.num,
    nfe=values.nfe,
    label=values.label,
    seed=values.seed,
    step=values.step,
    latents=values.latents,
  )
  if out.suffix == ".npz":
    processes.once(lambda: _save_arrays(out, samples, labels))
  else:
    processes.once(lambda: commands.save_samples(samples, out))
  _say(f"{len(samples)} samples, {values.nfe} network call(s) each: {out}")
  return 0


def _evaluate(arguments: list[str]) -> int:
  values = flags.FlagValues()
  flags.DEFINE_string("workdir", None, "", flag_values=values)
  flags.DEFINE_list("nfe", [], "", flag_values=values)
  _parse(arguments, values)
  workdir = _required(values.workdir, "workdir", "the folder of a run")
  try:
    nfe = tuple(int(n) for n in values.nfe)
  except ValueError as error:
    raise UsageError(
      f"--nfe={','.join(values.nfe)}: give whole numbers, --nfe=1,2,4 for "
      "instance"
    ) from error

  from jaxflow import commands, evaluation

  rows = commands.evaluate(pathlib.Path(workdir), nfe=nfe)
  _say(evaluation.table({f"NFE {r['nfe']}": r["scores"] for r in rows}))
  for row in rows:
    _say(f"NFE {row['nfe']}: {row['samples_per_second']:,.0f} samples/s")
  return 0


def _pairs(arguments: list[str]) -> int:
  from jaxflow import commands

  values = flags.FlagValues()
  for name in ("workdir", "out"):
    flags.DEFINE_string(name, None, "", flag_values=values)
  flags.DEFINE_integer("step", None, "", flag_values=values)
  options = _define(commands.PairOptions, values)
  _parse(arguments, values)
  workdir = _required(values.workdir, "workdir", "the folder of a run")
  out = _required(values.out, "out", "a folder for the pairs")
  commands.make_pairs(
    pathlib.Path(workdir),
    pathlib.Path(out),
    options(),
    step=values.step,
    say=_say,
  )
  return 0


def _encode(arguments: list[str]) -> int:
  from jaxflow import commands

  values = flags.FlagValues()
  flags.DEFINE_string("out", None, "", flag_values=values)
  options = _define(commands.EncodeOptions, values)
  _parse(arguments, values)
  out = _required(values.out, "out", "a folder for the latents")
  commands.encode(pathlib.Path(out), options(), say=_say)
  return 0


# What `rectify` sets for every round.
_OF_ROUNDS = (
  "--config.data.pairs",
  "--config.data.synthetic_share",
  "--config.init.",
)


def _rectify(arguments: list[str]) -> int:
  from jaxflow import commands
  from jaxflow.config.flags import parse

  for argument in arguments:
    name = argument.split("=")[0]
    if name.startswith(_OF_ROUNDS):
      raise UsageError(f"{name}: every round has its own; leave it out")
  values = flags.FlagValues()
  flags.DEFINE_string("workdir", None, "", flag_values=values)
  rounds = _define(commands.Rounds, values)
  options = _define(commands.PairOptions, values)
  config = parse(arguments, values)
  workdir = _required(values.workdir, "workdir", "a folder for the rounds")
  commands.rectify(config, pathlib.Path(workdir), rounds(), options(), say=_say)
  return 0


def _compile(arguments: list[str]) -> int:
  from jaxflow.compilation.topologies import Topology
  from jaxflow.config.flags import parse

  values = flags.FlagValues()
  flags.DEFINE_string("topology", None, "", flag_values=values)
  flags.DEFINE_float("hbm", None, "", flag_values=values)
  config = parse(arguments, values)
  what = "the devices, v5e:16x16 or host:8 for instance"
  topology = Topology.parse(_required(values.topology, "topology", what))
  topology.prepare()

  from jaxflow.commands.compile import compile_config

  return 0 if compile_config(config, topology, hbm=values.hbm, say=_say) else 1


def _methods(arguments: list[str]) -> int:
  _parse(arguments, flags.FlagValues())
  from jaxflow.methods import METHODS

  for name, row in METHODS.items():
    needs = ", ".join(sorted(row.needs)) or "nothing"
    _say(f"{name}\n  {row.summary}\n  needs: {needs}\n  {row.paper}")
  return 0


# Commands that save and return where others would be ended.
INTERRUPTIBLE = ("train", "pairs", "rectify", "encode")
# Commands that have no use for other processes.
ALONE = ("compile", "methods")

COMMANDS = {
  "train": _train,
  "sample": _sample,
  "evaluate": _evaluate,
  "pairs": _pairs,
  "rectify": _rectify,
  "encode": _encode,
  "compile": _compile,
  "methods": _methods,
}


def _define(options: type[Any], values: flags.FlagValues) -> Callable[[], Any]:
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


def _parse(arguments: list[str], values: flags.FlagValues) -> None:
  try:
    rest = values(["jaxflow", *arguments])
  except flags.IllegalFlagValueError as error:
    # absl: "flag --num=x: invalid literal for int() with base 10: 'x'".
    given = str(error).removeprefix("flag ").split(": ")[0]
    raise UsageError(f"{given}: give a whole number") from error
  except flags.Error as error:
    raise UsageError(f"{error} (--help lists the flags)") from error
  if len(rest) > 1:
    raise UsageError(f"{rest[1]!r} is no flag: write --name=value")


def _save_arrays(out: pathlib.Path, samples: Any, labels: Any) -> None:
  import numpy as np

  if labels is None:
    np.savez(out, samples=samples)
  else:
    np.savez(out, samples=samples, label=labels)


def _check_writable(out: pathlib.Path) -> None:
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


def _required(value: str | None, name: str, what: str) -> str:
  if not value:
    raise UsageError(f"--{name} is missing: give {what}, --{name}=...")
  return value
