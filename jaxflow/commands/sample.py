"""`jaxflow sample`: draw samples from a run into a file, or a folder."""

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
from jaxflow.commands.flags import check_writable, picture_target
from jaxflow.errors import UsageError, named

# Samples where nothing says how many.
_NUM = 64
_FILES = (".png", ".npz")


def _run(values: Values, config: Any) -> None:
  out = pathlib.Path(values.out)
  pictures = picture_target(out, values.uint8, _FILES)
  if values.latents and (pictures or out.suffix != ".npz"):
    raise UsageError(
      f"--out={out}: --latents needs a file that ends in .npz, and no --uint8"
    )
  if values.label and values.labels_file:
    raise UsageError(
      f"--labels_file={values.labels_file}: --label is given as well; give one"
    )

  from jaxflow import api
  from jaxflow.parallel import processes
  from jaxflow.runs.decoding import is_drawn

  if out.suffix in _FILES:
    processes.once(lambda: check_writable(out))
  run = api.load(values.workdir, step=values.step, config=config)
  plan = run.run.plan
  if out.suffix == ".png" and not is_drawn(plan.data):
    raise UsageError(
      f"--out={out}: samples of shape {plan.model.shape} are neither images nor"
      " points in the plane; give a file that ends in .npz"
    )
  with named(labels="--label", labels_file="--labels_file", cond="--cond_file"):
    num, given = _conditions(values, plan)
    how = {**given, "nfe": values.nfe, "seed": values.seed}
    if pictures:
      run.save_pictures(out, num, **how, log=log)
    else:
      _save(out, run, num, values.latents, how)
  nfe = plan.sample.nfe if values.nfe is None else values.nfe
  log(f"{num} samples, {nfe} network call(s) each: {out}")


def _conditions(values: Values, plan: Any) -> tuple[int, dict[str, Any]]:
  """Return the number of samples, and `labels` or `cond` where given."""
  import numpy as np

  from jaxflow import conditions
  from jaxflow.runs.drawing import in_turn, labels_in_file, labels_in_text

  if values.cond_file:
    cond = _read(pathlib.Path(values.cond_file), plan)
    rows = (np.shape(x)[:1] for x in conditions.leaves(cond).values())
    num = next((x[0] for x in rows if x), _NUM)
    return num if values.num is None else values.num, {"cond": cond}
  if values.labels_file:
    given = labels_in_file(plan, pathlib.Path(values.labels_file))
    num = len(given) if values.num is None else values.num
    return num, {"labels": in_turn(given, num)}
  num = _NUM if values.num is None else values.num
  if values.label is None:
    return num, {}
  given = labels_in_text(plan, values.label)
  several = len(given) > 1
  return num, {"labels": in_turn(given, num) if several else values.label}


def _read(file: pathlib.Path, plan: Any) -> Any:
  """Return the conditions in a file."""
  from jaxflow import conditions
  from jaxflow.reading import read_arrays, reading

  if not plan.declares_condition:
    raise UsageError(
      f"--cond_file={file}: the network of this run declares no condition: "
      "leave it out, and give --label where there are classes"
    )
  try:
    with reading(file, "give an .npz file"):
      arrays = read_arrays(file)
    return conditions.from_leaves(arrays, plan.model.null_cond)
  except (FileNotFoundError, NotADirectoryError) as error:
    raise UsageError(f"--cond_file={file}: no such file") from error
  except ValueError as error:
    raise UsageError(f"--cond_file={file}: {error}") from error


def _save(
  out: pathlib.Path, run: Any, num: int, latents: bool, how: Any
) -> None:
  """Write samples as a grid or as arrays."""
  from jaxflow import conditions, figures
  from jaxflow.files import save_arrays
  from jaxflow.parallel import processes
  from jaxflow.runs.decoding import picture_of
  from jaxflow.runs.drawing import check_num, checked_conditions

  plan = run.run.plan
  check_num(num, plan.model.shape, plan.model.null_cond)
  labels, cond = how.pop("labels", None), how.pop("cond", None)
  found = checked_conditions(plan, num, labels, cond, seed=how["seed"])
  declared = plan.declares_condition
  given = {"cond" if declared else "labels": found}
  samples = run.sample(num, **given, **how, clip=False, latents=latents)
  beside = conditions.leaves(found) if declared else {"label": found}

  def write() -> None:
    if out.suffix == ".png":
      figures.save_samples(picture_of(plan.data, samples), out)
    else:
      there = {k: x for k, x in beside.items() if x is not None}
      save_arrays(out, {"samples": samples, **there})

  processes.once(write)


COMMAND = Command(
  summary="draw samples from a workdir into a picture, an .npz file or PNGs",
  changes=SAMPLING,
  flags=(
    WORKDIR,
    Flag(
      "out",
      "a .png or .npz file: a grid of images or a scatter of points, or the "
      "arrays `samples` and `label`, or the condition; a folder: a PNG file "
      "for each image",
    ),
    Flag(
      "num",
      f"how many samples (default: {_NUM}, or as many as --labels_file or "
      "--cond_file has)",
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
      "classes, numbers or names with commas between, which samples have in "
      "turn (default: all classes), or numbers with commas between, where "
      "labels are numbers (default: those of random training data)",
      kind=str,
    ),
    Flag(
      "labels_file",
      "a text file with a label in each line, which samples have in turn",
    ),
    Flag(
      "cond_file",
      "an .npz file of conditions, where the network declares its own: an "
      "entry for each array, a row a sample (default: those of the test split)",
    ),
    Flag(
      "uint8",
      "keep images as other evaluators read them: `arr_0`, bytes [N, H, W, 3], "
      "and the labels `arr_1`",
      False,
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
  notes="""\
A value x of an image from -1 to 1 becomes the byte floor(127.5 x + 128), and
gray becomes RGB, in folders and with --uint8. These are written batch by batch.
A folder that was interrupted goes on with the same command.""",
  example="jaxflow sample --workdir=runs/digits --label=3 --out=grid.png",
)
