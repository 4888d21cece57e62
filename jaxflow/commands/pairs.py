"""`jaxflow pairs`: make pairs of noise and data with a trained run."""

import pathlib
from typing import Any

from jaxflow.commands.command import Command, Flag, Values
from jaxflow.commands.console import log
from jaxflow.commands.flags import options_of


def _options() -> tuple[type[Any], ...]:
  from jaxflow.runs.pair_generation import PairOptions

  return (PairOptions,)


def _run(values: Values, config: Any) -> None:
  from jaxflow.runs.pair_generation import PairOptions, make_pairs

  make_pairs(
    pathlib.Path(values.workdir),
    pathlib.Path(values.out),
    options_of(PairOptions, values),
    step=values.step,
    say=log,
  )


COMMAND = Command(
  summary="make pairs of noise and data with a trained run's ODE",
  flags=(
    Flag(
      "workdir", "the folder of a run whose network is a velocity: the teacher"
    ),
    Flag("step", "the teacher's checkpoint (default: the latest)", kind=int),
    Flag(
      "out",
      "a folder for the pairs, for --config.data.pairs; with these pairs begun "
      "in it, the work goes on at the first missing shard",
    ),
  ),
  options=_options,
  required={"workdir": "TEACHER", "out": "FOLDER"},
  run=_run,
  example="jaxflow pairs --workdir=runs/teacher --num=50000 --out=runs/pairs",
  interruptible=True,
)
