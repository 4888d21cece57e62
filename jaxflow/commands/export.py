"""`jaxflow export`: write the network of a run under published names."""

import pathlib
from typing import Any

from jaxflow.commands.command import STEP, WORKDIR, Command, Flag, Values
from jaxflow.commands.console import log
from jaxflow.commands.flags import check_writable


def _run(values: Values, config: Any) -> None:
  from jaxflow.runs.importing import export_network

  out = pathlib.Path(values.out)
  check_writable(out)
  export_network(
    pathlib.Path(values.workdir),
    values.format,
    out,
    step=values.step,
    ema=values.ema,
    log=log,
  )


COMMAND = Command(
  summary="write the network of a run under published names",
  flags=(
    WORKDIR,
    STEP,
    Flag("ema", "the average that is written (default: sampling), or online"),
    Flag("format", "the format whose names it gets, as of jaxflow import"),
    Flag("out", "a .safetensors file"),
  ),
  required={"workdir": "FOLDER", "format": "FORMAT", "out": "FILE"},
  run=_run,
  example="""\
jaxflow export --workdir=runs/student --format=dit --out=student.safetensors""",
)
