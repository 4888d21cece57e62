"""`jaxflow rectify`: make pairs and train on them, in rounds."""

import pathlib
from typing import Any

from absl import flags

from jaxflow.commands.command import Command
from jaxflow.commands.console import say
from jaxflow.commands.flags import define_options, options_of

__all__ = ["COMMAND"]


def _define(values: flags.FlagValues) -> None:
  from jaxflow.runs.pair_generation import PairOptions
  from jaxflow.runs.rounds import Rounds

  flags.DEFINE_string(
    "workdir",
    None,
    "a folder for the rounds: round_0, pairs_1, round_1, ...; the same command "
    "goes on where it stopped",
    flag_values=values,
  )
  define_options(Rounds, values)
  define_options(PairOptions, values)


def _run(values: flags.FlagValues, config: Any) -> int:
  from jaxflow.runs.pair_generation import PairOptions
  from jaxflow.runs.rounds import Rounds, rectify

  rectify(
    config,
    pathlib.Path(values.workdir),
    options_of(Rounds, values),
    options_of(PairOptions, values),
    say=say,
  )
  return 0


COMMAND = Command(
  summary="make pairs and train on them, in rounds of ReFlow",
  takes_config=True,
  fixed=("data.pairs", "data.synthetic_share", "init"),
  define=_define,
  required={"workdir": "FOLDER"},
  run=_run,
  notes="""\
Every round has this config, but pairs and first weights of its own.""",
  example="jaxflow rectify --config=digits:reflow --workdir=runs/reflow",
  interruptible=True,
)
