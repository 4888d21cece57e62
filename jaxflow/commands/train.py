"""`jaxflow train`: train a config in a workdir."""

import pathlib
from typing import Any

from jaxflow.commands import sweeps
from jaxflow.commands.command import Command, Flag, Values
from jaxflow.commands.console import log, progress


def _run(values: Values, config: Any) -> None:
  workdir = pathlib.Path(values.workdir)
  if values.sweep is None:
    train_one(config, workdir, values.wandb)
  else:
    sweeps.run(config, workdir, values.sweep_processes, values.wandb)


def train_one(config: Any, workdir: pathlib.Path, wandb: str | None) -> bool:
  """Train a config in a folder; return whether training reached its end."""
  from jaxflow.runs.train import train
  from jaxflow.training.wandb_log import WandbLog

  callbacks: list[Any] = [*progress()]
  if wandb:
    callbacks.append(WandbLog(wandb))
  return train(config, workdir, callbacks=callbacks, log=log).finished


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
    Flag(
      "sweep",
      'fields with values, "seed=0,1,2 optimizer.learning_rate=1e-3,2e-3": '
      "each combination is a run in a folder of --workdir, which is named by "
      "its values; a table of all follows",
    ),
    Flag("sweep_processes", "how many runs of a sweep train at once", 1),
  ),
  required={"workdir": "FOLDER"},
  run=_run,
  notes="""\
Ctrl-C and SIGTERM save and exit 0; the same command resumes, a sweep at the run
that it was at.""",
  example="jaxflow train --config=digits:mean_flow --workdir=runs/digits",
  interruptible=True,
)
