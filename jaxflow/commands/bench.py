"""`jaxflow bench`: measure the cost of sampling and its overhead."""

import pathlib
from typing import Any

from absl import flags

from jaxflow.commands.command import Command
from jaxflow.commands.console import say
from jaxflow.commands.flags import whole_numbers

__all__ = ["COMMAND"]


def _define(values: flags.FlagValues) -> None:
  flags.DEFINE_string(
    "workdir", None, "the folder of a run", flag_values=values
  )
  flags.DEFINE_list(
    "nfe",
    [],
    "network calls per sample (default: of 1,2,4,8 those that its sampler can "
    "make)",
    flag_values=values,
  )
  flags.DEFINE_list(
    "batch", [], "samples at a time (default: 1,8,64)", flag_values=values
  )
  flags.DEFINE_string(
    "teacher",
    None,
    "another run to measure beside it (default: the teacher in the run's own "
    "checkpoint); of the solvers that it knows, it takes the one whose samples "
    "come nearest to held-out data",
    flag_values=values,
  )
  flags.DEFINE_list(
    "teacher_nfe",
    [],
    "network calls per sample of the teacher (default: as --nfe)",
    flag_values=values,
  )


def _run(values: flags.FlagValues, config: Any) -> int:
  del config
  nfe = whole_numbers(values, "nfe")
  batch = whole_numbers(values, "batch")
  teacher_nfe = whole_numbers(values, "teacher_nfe")

  from jaxflow.reports.bench import bench
  from jaxflow.reports.costs import cost_table

  costs = bench(
    pathlib.Path(values.workdir),
    teacher=pathlib.Path(values.teacher) if values.teacher else None,
    nfe=nfe,
    batch=batch,
    teacher_nfe=teacher_nfe,
    say=say,
  )
  say(cost_table(costs))
  return 0


COMMAND = Command(
  summary="measure latency, memory, FLOPs and overhead of samplers",
  define=_define,
  required={"workdir": "FOLDER"},
  run=_run,
  notes="""\
Prints, a line a sampler, time to compile, latency, samples/s, memory, FLOPs,
and the overhead beyond its network calls; writes WORKDIR/bench.json, and
WORKDIR/bench.png, quality against latency.""",
  example="jaxflow bench --workdir=runs/digits --nfe=1,4 --batch=64",
)
