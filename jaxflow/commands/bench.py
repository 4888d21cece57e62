"""`jaxflow bench`: measure the cost of sampling and its overhead."""

import pathlib
from typing import Any

from jaxflow.commands.command import WORKDIR, Command, Flag, Values, numbers
from jaxflow.commands.console import log


def _run(values: Values, config: Any) -> None:
  from jaxflow.reports.bench import bench
  from jaxflow.reports.costs import cost_table

  costs = bench(
    pathlib.Path(values.workdir),
    teacher=pathlib.Path(values.teacher) if values.teacher else None,
    nfe=values.nfe or (),
    batch=values.batch or (),
    teacher_nfe=values.teacher_nfe or (),
    say=log,
  )
  log(cost_table(costs))


COMMAND = Command(
  summary="measure latency, memory, FLOPs and overhead of samplers",
  flags=(
    WORKDIR,
    Flag(
      "nfe",
      "network calls per sample (default: of 1,2,4,8 those that its sampler "
      "can make)",
      kind=numbers,
    ),
    Flag("batch", "samples at a time (default: 1,8,64)", kind=numbers),
    Flag(
      "teacher",
      "another run to measure beside it (default: the teacher in the run's own "
      "checkpoint); of the solvers that it knows, it takes the one whose "
      "samples come nearest to held-out data",
    ),
    Flag(
      "teacher_nfe",
      "network calls per sample of the teacher (default: as --nfe)",
      kind=numbers,
    ),
  ),
  required={"workdir": "FOLDER"},
  run=_run,
  notes="""\
Prints, a line a sampler, time to compile, latency, samples/s, memory, FLOPs,
and the overhead beyond its network calls; writes WORKDIR/bench.json, and
WORKDIR/bench.png, quality against latency.""",
  example="jaxflow bench --workdir=runs/digits --nfe=1,4 --batch=64",
)
