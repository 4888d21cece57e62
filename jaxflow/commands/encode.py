"""`jaxflow encode`: write the latents of an image set."""

import pathlib
from typing import Any

from absl import flags

from jaxflow.commands.command import Command
from jaxflow.commands.console import say
from jaxflow.commands.flags import define_options, options_of

__all__ = ["COMMAND"]


def _define(values: flags.FlagValues) -> None:
  from jaxflow.runs.encoding import EncodeOptions

  flags.DEFINE_string(
    "out",
    None,
    "a folder for the latents, for --config.data.name=latents "
    "--config.data.data_dir=FOLDER; with these latents begun in it, the work "
    "goes on at the first missing shard",
    flag_values=values,
  )
  define_options(EncodeOptions, values)


def _run(values: flags.FlagValues, config: Any) -> int:
  del config

  from jaxflow.runs.encoding import EncodeOptions, encode

  options = options_of(EncodeOptions, values)
  encode(pathlib.Path(values.out), options, say=say)
  return 0


COMMAND = Command(
  summary="write the latents of an image set, by published weights",
  define=_define,
  required={"data": "NAME", "autoencoder": "PATH", "out": "FOLDER"},
  run=_run,
  example="""\
jaxflow encode --data=fashion_mnist --size=32 --out=runs/latents \\
    --autoencoder=sd-vae-ft-mse""",
  interruptible=True,
)
