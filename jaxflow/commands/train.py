"""`jaxflow train`: train a config in a workdir."""

import pathlib
from typing import Any

from absl import flags

from jaxflow.commands.command import Command
from jaxflow.commands.console import progress, say

__all__ = ["COMMAND"]


def _define(values: flags.FlagValues) -> None:
  flags.DEFINE_string(
    "workdir",
    None,
    "a folder for the run: config.json, checkpoints/, metrics.csv, "
    "tensorboard/ and samples/; with a run in it, training goes on from its "
    "last checkpoint",
    flag_values=values,
  )
  flags.DEFINE_string(
    "wandb",
    None,
    "a project of Weights & Biases that gets scalars and samples as well; with "
    "WANDB_MODE=offline, nothing leaves this machine",
    flag_values=values,
  )


def _run(values: flags.FlagValues, config: Any) -> int:
  from jaxflow.runs.train import train
  from jaxflow.training.wandb_log import WandbLog

  callbacks: list[Any] = [*progress()]
  if values.wandb:
    callbacks.append(WandbLog(values.wandb))
  train(config, pathlib.Path(values.workdir), callbacks=callbacks, log=say)
  return 0


COMMAND = Command(
  summary="train a config in a folder, or resume the run there",
  takes_config=True,
  define=_define,
  required={"workdir": "FOLDER"},
  run=_run,
  notes="Ctrl-C and SIGTERM save and exit 0; the same command resumes.",
  example="jaxflow train --config=digits:mean_flow --workdir=runs/digits",
  interruptible=True,
)
