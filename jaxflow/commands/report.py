"""`jaxflow report`: write one page about a run."""

import pathlib
from typing import Any

from jaxflow.commands.command import WORKDIR, Command, Flag, Values
from jaxflow.commands.console import log


def _run(values: Values, config: Any) -> None:
  from jaxflow.reports.page import report

  file = report(pathlib.Path(values.workdir), nfe=values.nfe, num=values.num)
  log(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


COMMAND = Command(
  summary="write one page: config, curves, evaluation, costs, pictures",
  flags=(
    WORKDIR,
    Flag(
      "nfe",
      "network calls per sample of the pictures (default: the config's "
      "sample.nfe)",
      kind=int,
    ),
    Flag(
      "num",
      "how many samples are compared with the data (default: 300 images, 5000 "
      "points)",
      kind=int,
    ),
  ),
  required={"workdir": "FOLDER"},
  run=_run,
  notes="""\
Writes WORKDIR/report.html, which needs no other file: config, curves of the
training, results of evaluate and bench, interpolations in noise, samples
beside their nearest training samples and beside the teacher's; of points in the
plane densities, trajectories and the map from noise.""",
  example="jaxflow report --workdir=runs/digits",
)
