"""`jaxflow evaluate`: compare samples of a run with held-out data."""

from typing import Any

from jaxflow.commands.command import (
  SAMPLING,
  STEP,
  WORKDIR,
  Command,
  Flag,
  Values,
  numbers,
)
from jaxflow.commands.console import log


def _run(values: Values, config: Any) -> None:
  from jaxflow import api, metrics

  run = api.load(values.workdir, step=values.step, config=config)
  rows = run.evaluate(nfe=values.nfe or (), log=log)
  log(metrics.table({_title(row): row["scores"] for row in rows}))
  for row in rows:
    if row["nfe"]:
      speed = row["samples_per_second"]
      log(f"{_title(row)}: {speed:,.0f} samples/s")


def _title(row: dict[str, Any]) -> str:
  return f"NFE {row['nfe']}" if row["nfe"] else "flow"


COMMAND = Command(
  summary="compare samples with held-out data, beside scores of real data",
  changes=(
    *(*SAMPLING, "evaluation"),
    *("data.raw_dir", "data.data_dir", "data.download"),
  ),
  flags=(
    WORKDIR,
    Flag(
      "nfe",
      "network calls per sample, with commas between; one evaluation each "
      "(default: the config's evaluation.nfe)",
      kind=numbers,
    ),
    STEP,
  ),
  required={"workdir": "FOLDER"},
  run=_run,
  notes="""\
Fields of evaluation are num (samples), metrics (names with commas between),
network.name (none, classifier, efficientnet_lite0 or inception), reference (a
file of `jaxflow stats`, or a published one), and more.

Prints each metric beside its value for real data, and writes
WORKDIR/evaluation.json. After an interruption the same command resumes.""",
  example="""\
jaxflow evaluate --workdir=runs/digits --nfe=1,2,4 \\
    --config.evaluation.network.name=classifier""",
  resumable=True,
)
