"""Sweeps of `jaxflow train`: the product of values of fields, a run each."""

import contextlib
import itertools
import pathlib
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxflow.commands.console import log
from jaxflow.errors import RunError, UsageError

# Commas that stand in no brackets.
_COMMA = re.compile(r",(?![^(\[]*[)\]])")
# Seconds between looks at processes.
_POLL = 0.2


class Sweep(NamedTuple):
  """A run of a sweep: the arguments of its config, and the config."""

  arguments: list[str]
  config: Any


def configs(arguments: Sequence[str], text: str) -> dict[str, Sweep]:
  """Return the runs of a sweep by the names of their folders.

  Args:
    arguments: `--config` and the fields that all share.
    text: "FIELD=VALUE,VALUE FIELD=VALUE,VALUE".

  Raises:
    UsageError: A field or a value is wrong; all are read before.
  """
  from jaxflow import config as config_lib
  from jaxflow.config.flags import parse

  found: dict[str, Sweep] = {}
  for pairs in itertools.product(*_fields(text)):
    mine = [*arguments, *(f"--config.{k}={v}" for k, v in pairs)]
    parts = (f"{k}={v}" for k, v in pairs)
    name = "_".join(re.sub(r"[^\w.=+-]", "-", part) for part in parts)
    if name in found:
      raise UsageError(f"--sweep={text!r}: two runs are called {name}")
    config = parse(mine)
    config_lib.check_limits(config)
    config_lib.evaluation_plan(config)
    found[name] = Sweep(mine, config)
  return found


def arguments(text: str) -> list[str]:
  """Return every `--config.FIELD=VALUE` of a sweep."""
  fields = (pair for pairs in _fields(text) for pair in pairs)
  return [f"--config.{field}={value}" for field, value in fields]


def _fields(text: str) -> list[list[tuple[str, str]]]:
  """Return the values of each field, with its name."""
  try:
    words = shlex.split(text)
  except ValueError as error:
    raise UsageError(f"--sweep={text!r}: close the quotes") from error
  fields: dict[str, list[tuple[str, str]]] = {}
  for word in words or [text]:
    name, equals, values = word.partition("=")
    each = [x.strip() for x in _COMMA.split(values)]
    if not (name and equals and all(each)):
      raise UsageError(
        f"--sweep={text!r}: {word!r} is no field with values; give "
        '"seed=0,1,2 optimizer.learning_rate=1e-3,2e-3" for instance'
      )
    name = name.removeprefix("--").removeprefix("config.")
    if name in fields or len({*each}) < len(each):
      raise UsageError(f"--sweep={text!r}: {word!r} repeats; give each once")
    fields[name] = [(name, x) for x in each]
  return [*fields.values()]


def run(
  sweep: Mapping[str, Sweep], workdir: pathlib.Path, processes: int, wandb: Any
) -> None:
  """Train all runs in folders of `workdir`, and compare them.

  Each goes on where it stopped, and one that is finished says so. Several
  `processes` train as many runs at once; what they print is in NAME.log.
  """
  if processes < 1:
    raise UsageError(f"--sweep_processes={processes}: give 1 or more")
  log(f"{len(sweep)} runs in {workdir}: {', '.join(sweep)}")
  if processes == 1:
    done = _in_turn(sweep, workdir, wandb)
  else:
    done = _at_once(sweep, workdir, processes, wandb)
  if done < len(sweep):
    log(f"interrupted: {done} of {len(sweep)} runs are trained; {_AGAIN}")
    return
  from jaxflow.reports.comparison import compare

  folders = [workdir / name for name in sweep]
  if len(folders) > 1:
    compare(folders, workdir / "compare.html", log=log)


_AGAIN = "the same command goes on"


def _in_turn(
  sweep: Mapping[str, Sweep], workdir: pathlib.Path, wandb: Any
) -> int:
  """Train run after run in this process; return how many are trained."""
  from jaxflow.commands.train import train_one

  for number, (name, one) in enumerate(sweep.items()):
    log(f"run {number + 1} of {len(sweep)}: {name}")
    if not train_one(one.config, workdir / name, wandb):
      return number
  return len(sweep)


def _at_once(
  sweep: Mapping[str, Sweep], workdir: pathlib.Path, count: int, wandb: Any
) -> int:
  """Train runs in processes of their own; return how many are trained."""
  from jaxflow.parallel.processes import interruption

  waiting, running, done = list(sweep), {}, 0
  workdir.mkdir(parents=True, exist_ok=True)
  with interruption() as interrupted, contextlib.ExitStack() as stack:
    while (waiting and not interrupted()) or running:
      while waiting and len(running) < count and not interrupted():
        name = waiting.pop(0)
        file = stack.enter_context(open(workdir / f"{name}.log", "a"))
        flags = [f"--workdir={workdir / name}", "--distributed=off"]
        flags += [f"--wandb={wandb}"] if wandb else []
        command = [sys.executable, "-m", "jaxflow", "train"]
        running[name] = subprocess.Popen(
          [*command, *sweep[name].arguments, *flags],
          stdout=file,
          stderr=subprocess.STDOUT,
          start_new_session=True,
        )
        log(f"{name}: begins, {workdir / name}.log")
      time.sleep(_POLL)
      if interrupted():
        for process in running.values():
          process.terminate()  # It saves, and ends with code 0.
        for process in running.values():
          process.wait()
        return done
      for name in [x for x in running if running[x].poll() is not None]:
        code = running.pop(name).returncode
        if code:
          for process in running.values():
            process.terminate()
          for process in running.values():
            process.wait()
          raise RunError(
            f"{name} ended with code {code}: {workdir / name}.log says why; "
            f"{_AGAIN}"
          )
        done += 1
        log(f"{name}: done, {done} of {len(sweep)}")
  return done
