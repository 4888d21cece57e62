"""Commands that fill a folder: train, rectify, pairs, encode."""

import pathlib

from absl import flags

from jaxflow.commands.console import say
from jaxflow.commands.flags import define, read, required
from jaxflow.errors import UsageError


def train(arguments: list[str]) -> int:
  """Train a config in a workdir."""
  from jaxflow.config.flags import parse

  values = flags.FlagValues()
  flags.DEFINE_string("workdir", None, "", flag_values=values)
  config = parse(arguments, values)
  workdir = required(values.workdir, "workdir", "a folder for the run")

  from jaxflow import commands

  commands.train(config, pathlib.Path(workdir), say=say)
  return 0


def pairs(arguments: list[str]) -> int:
  """Make pairs with a trained run."""
  from jaxflow import commands

  values = flags.FlagValues()
  for name in ("workdir", "out"):
    flags.DEFINE_string(name, None, "", flag_values=values)
  flags.DEFINE_integer("step", None, "", flag_values=values)
  options = define(commands.PairOptions, values)
  read(arguments, values)
  workdir = required(values.workdir, "workdir", "the folder of a run")
  out = required(values.out, "out", "a folder for the pairs")
  commands.make_pairs(
    pathlib.Path(workdir),
    pathlib.Path(out),
    options(),
    step=values.step,
    say=say,
  )
  return 0


def encode(arguments: list[str]) -> int:
  """Write the latents of an image set."""
  from jaxflow import commands

  values = flags.FlagValues()
  flags.DEFINE_string("out", None, "", flag_values=values)
  options = define(commands.EncodeOptions, values)
  read(arguments, values)
  out = required(values.out, "out", "a folder for the latents")
  commands.encode(pathlib.Path(out), options(), say=say)
  return 0


# What `rectify` sets for every round.
_OF_ROUNDS = (
  "--config.data.pairs",
  "--config.data.synthetic_share",
  "--config.init.",
)


def rectify(arguments: list[str]) -> int:
  """Make pairs and train on them, in rounds."""
  from jaxflow import commands
  from jaxflow.config.flags import parse

  for argument in arguments:
    name = argument.split("=")[0]
    if name.startswith(_OF_ROUNDS):
      raise UsageError(f"{name}: every round has its own; leave it out")
  values = flags.FlagValues()
  flags.DEFINE_string("workdir", None, "", flag_values=values)
  rounds = define(commands.Rounds, values)
  options = define(commands.PairOptions, values)
  config = parse(arguments, values)
  workdir = required(values.workdir, "workdir", "a folder for the rounds")
  commands.rectify(config, pathlib.Path(workdir), rounds(), options(), say=say)
  return 0
