"""`jaxflow merge`: write a run with an adapter as one without."""

import pathlib
from typing import Any

from jaxflow.commands.command import STEP, WORKDIR, Command, Flag, Values
from jaxflow.commands.console import log
from jaxflow.errors import named


def _run(values: Values, config: Any) -> None:
  from jaxflow.runs.merging import merge_run

  out = pathlib.Path(values.out)
  with named(out="--out", workdir="--workdir"):
    merge_run(pathlib.Path(values.workdir), out, step=values.step, log=log)


COMMAND = Command(
  summary="write a run with an adapter as one without",
  flags=(WORKDIR, STEP, Flag("out", "a new folder for the run")),
  required={"workdir": "FOLDER", "out": "FOLDER"},
  run=_run,
  example="jaxflow merge --workdir=runs/adapted --out=runs/merged",
)
