"""`jaxflow pairs`: make pairs of noise and data with a trained run."""

import pathlib
from typing import Any

from absl import flags

from jaxflow.commands.command import Command
from jaxflow.commands.console import say
from jaxflow.commands.flags import define_options, options_of

__all__ = ["COMMAND"]


def _define(values: flags.FlagValues) -> None:
  from jaxflow.runs.pair_generation import PairOptions

  flags.DEFINE_string(
    "workdir",
    None,
    "the folder of a run whose network is a velocity: the teacher",
    flag_values=values,
  )
  flags.DEFINE_string(
    "out",
    None,
    "a folder for the pairs, for --config.data.pairs; with these pairs begun "
    "in it, the work goes on at the first missing shard",
    flag_values=values,
  )
  define_options(PairOptions, values)
  flags.DEFINE_integer(
    "step",
    None,
    "the teacher's checkpoint (default: the latest)",
    flag_values=values,
  )


def _run(values: flags.FlagValues, config: Any) -> int:
  del config

  from jaxflow.runs.pair_generation import PairOptions, make_pairs

  make_pairs(
    pathlib.Path(values.workdir),
    pathlib.Path(values.out),
    options_of(PairOptions, values),
    step=values.step,
    say=say,
  )
  return 0


COMMAND = Command(
  summary="make pairs of noise and data with a trained run's ODE",
  define=_define,
  required={"workdir": "TEACHER", "out": "FOLDER"},
  run=_run,
  example="jaxflow pairs --workdir=runs/teacher --num=50000 --out=runs/pairs",
  interruptible=True,
)
