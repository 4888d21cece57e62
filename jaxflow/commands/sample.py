"""`jaxflow sample`: draw samples from a run into a file."""

import pathlib
from typing import Any

from absl import flags

from jaxflow.commands.command import Command
from jaxflow.commands.console import say
from jaxflow.commands.flags import SAMPLING, check_writable, checkpoint
from jaxflow.errors import UsageError, named

__all__ = ["COMMAND"]


def _define(values: flags.FlagValues) -> None:
  flags.DEFINE_string(
    "workdir", None, "the folder of a run", flag_values=values
  )
  flags.DEFINE_string(
    "out",
    None,
    "a .png or .npz file: a grid of images or a scatter of points, or the "
    "arrays `samples` and `label`",
    flag_values=values,
  )
  flags.DEFINE_integer("num", 64, "how many samples", flag_values=values)
  flags.DEFINE_integer(
    "nfe",
    None,
    "network calls per sample; with guidance each takes a doubled batch "
    "(default: the config's sample.nfe)",
    flag_values=values,
  )
  flags.DEFINE_integer(
    "label",
    None,
    "the class of all samples (default: the classes in turn)",
    flag_values=values,
  )
  flags.DEFINE_integer("seed", 0, "seed of the noise", flag_values=values)
  flags.DEFINE_string(
    "step",
    None,
    "the checkpoint (default: the latest), or best",
    flag_values=values,
  )
  flags.DEFINE_boolean(
    "latents",
    False,
    "of a run on latents, keep them in the .npz file, in the units of the "
    "autoencoder, and decode none",
    flag_values=values,
  )


def _run(values: flags.FlagValues, config: Any) -> int:
  out = pathlib.Path(values.out)
  if out.suffix not in (".png", ".npz"):
    raise UsageError(f"--out={out}: give a file that ends in .png or .npz")
  if values.latents and out.suffix != ".npz":
    raise UsageError(f"--out={out}: --latents needs a file that ends in .npz")
  step = checkpoint(values.step)

  from jaxflow import api
  from jaxflow.parallel import processes
  from jaxflow.runs.drawing import checked_labels

  processes.once(lambda: check_writable(out))
  run = api.load(values.workdir, step=step, config=config)
  with named(labels="--label"):
    classes = run.run.model.num_classes
    labels = checked_labels(classes, max(values.num, 0), values.label)
    samples = run.sample(
      values.num,
      labels=labels,
      nfe=values.nfe,
      seed=values.seed,
      clip=False,
      latents=values.latents,
    )
  processes.once(lambda: _write(out, samples, labels))
  nfe = run.run.plan.sample.nfe if values.nfe is None else values.nfe
  say(f"{len(samples)} samples, {nfe} network call(s) each: {out}")
  return 0


def _write(out: pathlib.Path, samples: Any, labels: Any) -> None:
  """Write samples as a picture or as arrays."""
  import numpy as np

  from jaxflow import figures

  if out.suffix == ".png":
    figures.save_samples(samples, out)
  elif labels is None:
    np.savez(out, samples=samples)
  else:
    np.savez(out, samples=samples, label=labels)


COMMAND = Command(
  summary="draw samples from a workdir into a picture or an .npz file",
  changes=SAMPLING,
  define=_define,
  required={"workdir": "FOLDER", "out": "FILE"},
  run=_run,
  example="jaxflow sample --workdir=runs/digits --label=3 --out=grid.png",
)
