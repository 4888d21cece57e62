"""`jaxflow train`: train a config in a workdir."""

import pathlib
from typing import Any

from jaxflow.commands.command import Command, Flag, Values
from jaxflow.commands.console import log, progress


def _run(values: Values, config: Any) -> None:
  from jaxflow.runs.train import train
  from jaxflow.training.wandb_log import WandbLog

  callbacks: list[Any] = [*progress()]
  if values.wandb:
    callbacks.append(WandbLog(values.wandb))
  train(config, pathlib.Path(values.workdir), callbacks=callbacks, log=log)


COMMAND = Command(
  summary="train a config in a folder, or resume the run there",
  takes_config=True,
  flags=(
    Flag(
      "workdir",
      "a folder for the run: config.json, checkpoints/, metrics.csv, "
      "tensorboard/ and samples/; with a run in it, training goes on from its "
      "last checkpoint",
    ),
    Flag(
      "wandb",
      "a project of Weights & Biases that gets scalars and samples as well; "
      "with WANDB_MODE=offline, nothing leaves this machine",
    ),
  ),
  required={"workdir": "FOLDER"},
  run=_run,
  notes="Ctrl-C and SIGTERM save and exit 0; the same command resumes.",
  example="jaxflow train --config=digits:mean_flow --workdir=runs/digits",
  interruptible=True,
)
