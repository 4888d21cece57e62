"""`jaxflow import`: write a published network as a run's folder."""

import pathlib
from typing import Any

from jaxflow.commands.command import Command, Flag, Values
from jaxflow.commands.console import log
from jaxflow.commands.flags import options_of


def _options() -> tuple[type[Any], ...]:
  from jaxflow.runs.importing import ImportOptions

  return (ImportOptions,)


def _run(values: Values, config: Any) -> None:
  from jaxflow.runs.importing import ImportOptions, import_network

  out = pathlib.Path(values.out)
  import_network(out, options_of(ImportOptions, values), log=log)


COMMAND = Command(
  summary="write a published network as the folder of a run",
  flags=(Flag("out", "a new folder for the run: it samples and teaches"),),
  options=_options,
  required={"format": "FORMAT", "file": "PATH", "out": "FOLDER"},
  run=_run,
  example="""\
jaxflow import --format=dit --file=DiT-XL-2-256x256.pt --out=runs/teacher""",
)
