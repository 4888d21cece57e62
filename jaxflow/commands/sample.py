"""`jaxflow sample`: draw samples from a run into a file."""

import pathlib
from typing import Any

from jaxflow.commands.command import (
  SAMPLING,
  STEP,
  WORKDIR,
  Command,
  Flag,
  Values,
)
from jaxflow.commands.console import log
from jaxflow.commands.flags import check_writable
from jaxflow.errors import UsageError, named


def _run(values: Values, config: Any) -> None:
  out = pathlib.Path(values.out)
  if out.suffix not in (".png", ".npz"):
    raise UsageError(f"--out={out}: give a file that ends in .png or .npz")
  if values.latents and out.suffix != ".npz":
    raise UsageError(f"--out={out}: --latents needs a file that ends in .npz")

  from jaxflow import api
  from jaxflow.parallel import processes
  from jaxflow.runs.decoding import is_drawn
  from jaxflow.runs.drawing import check_num, checked_conditions

  processes.once(lambda: check_writable(out))
  run = api.load(values.workdir, step=values.step, config=config)
  plan = run.run.plan
  if out.suffix == ".png" and not is_drawn(plan.data):
    raise UsageError(
      f"--out={out}: samples of shape {plan.model.shape} are neither images nor"
      " points in the plane; give a file that ends in .npz"
    )
  with named(labels="--label"):
    check_num(values.num, plan.model.shape)
    labels = checked_conditions(
      plan, values.num, values.label, seed=values.seed
    )
    samples = run.sample(
      values.num,
      labels=labels,
      nfe=values.nfe,
      seed=values.seed,
      clip=False,
      latents=values.latents,
    )
  processes.once(lambda: _write(out, plan.data, samples, labels))
  nfe = plan.sample.nfe if values.nfe is None else values.nfe
  log(f"{len(samples)} samples, {nfe} network call(s) each: {out}")


def _write(out: pathlib.Path, plan: Any, samples: Any, labels: Any) -> None:
  """Write samples as a picture or as arrays."""
  from jaxflow import figures
  from jaxflow.files import save_arrays
  from jaxflow.runs.decoding import picture_of

  if out.suffix == ".png":
    figures.save_samples(picture_of(plan, samples), out)
  else:
    arrays = {"samples": samples}
    save_arrays(out, arrays if labels is None else arrays | {"label": labels})


COMMAND = Command(
  summary="draw samples from a workdir into a picture or an .npz file",
  changes=SAMPLING,
  flags=(
    WORKDIR,
    Flag(
      "out",
      "a .png or .npz file: a grid of images or a scatter of points, or the "
      "arrays `samples` and `label`",
    ),
    Flag("num", "how many samples", 64),
    Flag(
      "nfe",
      "network calls per sample; with guidance each takes a doubled batch "
      "(default: the config's sample.nfe)",
      kind=int,
    ),
    Flag(
      "label",
      "the class of all samples, its number or its name (default: the classes "
      "in turn), or numbers with commas between, where labels are numbers "
      "(default: those of random training data)",
      kind=str,
    ),
    Flag("seed", "seed of the noise", 0),
    STEP,
    Flag(
      "latents",
      "of a run on latents, keep them in the .npz file, in the units of the "
      "autoencoder, and decode none",
      False,
    ),
  ),
  required={"workdir": "FOLDER", "out": "FILE"},
  run=_run,
  example="jaxflow sample --workdir=runs/digits --label=3 --out=grid.png",
)
