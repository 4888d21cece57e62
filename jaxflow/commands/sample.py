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

# Samples where nothing says how many.
_NUM = 64


def _run(values: Values, config: Any) -> None:
  out = pathlib.Path(values.out)
  if out.suffix not in (".png", ".npz"):
    raise UsageError(f"--out={out}: give a file that ends in .png or .npz")
  if values.latents and out.suffix != ".npz":
    raise UsageError(f"--out={out}: --latents needs a file that ends in .npz")

  import numpy as np

  from jaxflow import api, conditions
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
  with named(labels="--label", cond="--cond-file"):
    file, null_cond = values["cond-file"].value, plan.model.null_cond
    cond = None if file is None else _read(pathlib.Path(file), plan)
    num = values.num
    if num is None:
      rows = (np.shape(x)[:1] for x in conditions.leaves(cond).values())
      num = next((x[0] for x in rows if x), _NUM)
    check_num(num, plan.model.shape, null_cond)
    found = checked_conditions(plan, num, values.label, cond, seed=values.seed)
    declared = plan.declares_condition
    samples = run.sample(
      num,
      **{"cond" if declared else "labels": found},
      nfe=values.nfe,
      seed=values.seed,
      clip=False,
      latents=values.latents,
    )
  beside = conditions.leaves(found) if declared else {"label": found}
  processes.once(lambda: _write(out, plan.data, samples, beside))
  nfe = plan.sample.nfe if values.nfe is None else values.nfe
  log(f"{len(samples)} samples, {nfe} network call(s) each: {out}")


def _read(file: pathlib.Path, plan: Any) -> Any:
  """Return the conditions in a file."""
  from jaxflow import conditions
  from jaxflow.reading import read_arrays, reading

  if not plan.declares_condition:
    raise UsageError(
      f"--cond-file={file}: the network of this run declares no condition: "
      "leave it out, and give --label where there are classes"
    )
  try:
    with reading(file, "give an .npz file"):
      arrays = read_arrays(file)
    return conditions.from_leaves(arrays, plan.model.null_cond)
  except (FileNotFoundError, NotADirectoryError) as error:
    raise UsageError(f"--cond-file={file}: no such file") from error
  except ValueError as error:
    raise UsageError(f"--cond-file={file}: {error}") from error


def _write(out: pathlib.Path, plan: Any, samples: Any, beside: Any) -> None:
  """Write samples as a picture or as arrays."""
  from jaxflow import figures
  from jaxflow.files import save_arrays
  from jaxflow.runs.decoding import picture_of

  if out.suffix == ".png":
    figures.save_samples(picture_of(plan, samples), out)
  else:
    there = {k: x for k, x in beside.items() if x is not None}
    save_arrays(out, {"samples": samples, **there})


COMMAND = Command(
  summary="draw samples from a workdir into a picture or an .npz file",
  changes=SAMPLING,
  flags=(
    WORKDIR,
    Flag(
      "out",
      "a .png or .npz file: a grid of images or a scatter of points, or the "
      "arrays `samples` and `label`, or the condition",
    ),
    Flag(
      "num",
      f"how many samples (default: {_NUM}, or the rows of --cond-file)",
      kind=int,
    ),
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
    Flag(
      "cond-file",
      "an .npz file of conditions, where the network declares its own: an "
      "entry for each array, a row a sample (default: those of the test split)",
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
