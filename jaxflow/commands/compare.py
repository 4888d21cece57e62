"""`jaxflow compare`: set runs side by side."""

import pathlib
from typing import Any

from jaxflow.commands.command import Command, Flag, Values
from jaxflow.commands.console import log
from jaxflow.errors import UsageError


def _run(values: Values, config: Any) -> None:
  from jaxflow.files import expanded
  from jaxflow.reports.comparison import compare

  out = None if values.out is None else pathlib.Path(values.out)
  if out is not None and out.suffix != ".html":
    raise UsageError(f"--out={out}: give a file that ends in .html")
  names = [x.strip() for x in values.workdirs.split(",")]
  folders = [expanded("--workdirs", x) or "." for x in names]
  compare([pathlib.Path(x) for x in folders], out, log=log)


COMMAND = Command(
  summary="compare runs: one table of scores and costs, curves on one page",
  flags=(
    Flag("workdirs", "folders of runs, with commas between"),
    Flag(
      "out",
      "an .html file for a page with the table and the curves; a .png file "
      "of the curves goes beside it",
    ),
  ),
  required={"workdirs": "A,B"},
  run=_run,
  notes="""\
Reads what evaluate, bench and train have written in the folders: scores with
their errors and those of real data, calls, latency, cost of sampling and of
training. Nothing is drawn or measured anew.""",
  example="jaxflow compare --workdirs=runs/a,runs/b --out=compare.html",
  alone=True,
)
