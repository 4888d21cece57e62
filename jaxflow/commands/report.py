"""`jaxflow report`: write one page about a run."""

import pathlib
from typing import Any

from absl import flags

from jaxflow.commands.command import Command
from jaxflow.commands.console import say

__all__ = ["COMMAND"]


def _define(values: flags.FlagValues) -> None:
  flags.DEFINE_string(
    "workdir", None, "the folder of a run", flag_values=values
  )
  flags.DEFINE_integer(
    "nfe",
    None,
    "network calls per sample of the pictures (default: the config's "
    "sample.nfe)",
    flag_values=values,
  )
  flags.DEFINE_integer(
    "num",
    None,
    "how many samples are compared with the data (default: 300 images, 5000 "
    "points)",
    flag_values=values,
  )


def _run(values: flags.FlagValues, config: Any) -> int:
  del config

  from jaxflow.reports.page import report

  file = report(pathlib.Path(values.workdir), nfe=values.nfe, num=values.num)
  say(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
  return 0


COMMAND = Command(
  summary="write one page: config, curves, evaluation, costs, pictures",
  define=_define,
  required={"workdir": "FOLDER"},
  run=_run,
  notes="""\
Writes WORKDIR/report.html, which needs no other file: config, curves of the
training, results of evaluate and bench, interpolations in noise, samples
beside their nearest training samples and beside the teacher's; of points in the
plane densities, trajectories and the map from noise.""",
  example="jaxflow report --workdir=runs/digits",
)
