"""`jaxflow evaluate`: compare samples of a run with held-out data."""

from typing import Any

from absl import flags

from jaxflow.commands.command import Command
from jaxflow.commands.console import say
from jaxflow.commands.flags import SAMPLING, checkpoint, whole_numbers

__all__ = ["COMMAND"]


def _define(values: flags.FlagValues) -> None:
  flags.DEFINE_string(
    "workdir", None, "the folder of a run", flag_values=values
  )
  flags.DEFINE_list(
    "nfe",
    [],
    "network calls per sample, with commas between; one evaluation each "
    "(default: the config's evaluation.nfe)",
    flag_values=values,
  )
  flags.DEFINE_string(
    "step",
    None,
    "the checkpoint (default: the latest), or best",
    flag_values=values,
  )


def _run(values: flags.FlagValues, config: Any) -> int:
  nfe, step = whole_numbers(values, "nfe"), checkpoint(values.step)

  from jaxflow import api, metrics

  run = api.load(values.workdir, step=step, config=config)
  rows = run.evaluate(nfe=nfe, log=say)
  say(metrics.table({_title(row): row["scores"] for row in rows}))
  for row in rows:
    if row["nfe"]:
      speed = row["samples_per_second"]
      say(f"{_title(row)}: {speed:,.0f} samples/s")
  return 0


def _title(row: dict[str, Any]) -> str:
  return f"NFE {row['nfe']}" if row["nfe"] else "flow"


COMMAND = Command(
  summary="compare samples with held-out data, beside scores of real data",
  changes=(*SAMPLING, "evaluation", "data.raw_dir", "data.data_dir"),
  define=_define,
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
