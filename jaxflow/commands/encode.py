"""`jaxflow encode`: write the latents of an image set."""

import pathlib
from typing import Any

from jaxflow.commands.command import Command, Flag, Values
from jaxflow.commands.console import log
from jaxflow.commands.flags import options_of


def _options() -> tuple[type[Any], ...]:
  from jaxflow.runs.encoding import EncodeOptions

  return (EncodeOptions,)


def _run(values: Values, config: Any) -> None:
  from jaxflow.runs.encoding import EncodeOptions, encode

  options = options_of(EncodeOptions, values)
  encode(pathlib.Path(values.out), options, say=log)


COMMAND = Command(
  summary="write the latents of an image set, by published weights",
  flags=(
    Flag(
      "out",
      "a folder for the latents, for --config.data.name=latents "
      "--config.data.data_dir=FOLDER; with these latents begun in it, the work "
      "goes on at the first missing shard",
    ),
  ),
  options=_options,
  required={"data": "NAME", "autoencoder": "PATH", "out": "FOLDER"},
  run=_run,
  example="""\
jaxflow encode --data=fashion_mnist --size=32 --out=runs/latents \\
    --autoencoder=sd-vae-ft-mse""",
  interruptible=True,
)
