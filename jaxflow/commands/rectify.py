"""`jaxflow rectify`: make pairs and train on them, in rounds."""

import pathlib
from typing import Any

from jaxflow.commands.command import Command, Flag, Values
from jaxflow.commands.console import log
from jaxflow.commands.flags import options_of


def _options() -> tuple[type[Any], ...]:
  from jaxflow.runs.pair_generation import PairOptions
  from jaxflow.runs.rounds import Rounds

  return Rounds, PairOptions


def _run(values: Values, config: Any) -> None:
  from jaxflow.runs.rounds import rectify

  options = [options_of(kind, values) for kind in _options()]
  rectify(config, pathlib.Path(values.workdir), *options, say=log)


COMMAND = Command(
  summary="make pairs and train on them, in rounds of ReFlow",
  takes_config=True,
  fixed=("data.pairs", "data.synthetic_share", "init"),
  flags=(
    Flag(
      "workdir",
      "a folder for the rounds: round_0, pairs_1, round_1, ...; the same "
      "command goes on where it stopped",
    ),
  ),
  options=_options,
  required={"workdir": "FOLDER"},
  run=_run,
  notes="""\
Every round has this config, but pairs and first weights of its own.""",
  example="jaxflow rectify --config=digits:reflow --workdir=runs/reflow",
  interruptible=True,
)
