"""Commands that draw from a run: sample, evaluate."""

import pathlib
from typing import Any

from absl import flags

from jaxflow.cli.console import say
from jaxflow.cli.flags import read, required, whole_numbers
from jaxflow.errors import UsageError


def sample(arguments: list[str]) -> int:
  """Draw samples into a file."""
  values = flags.FlagValues()
  for name, default in (("workdir", None), ("out", None)):
    flags.DEFINE_string(name, default, "", flag_values=values)
  for name, default in (("num", 64), ("nfe", 1), ("seed", 0)):
    flags.DEFINE_integer(name, default, "", flag_values=values)
  for name in ("label", "step"):
    flags.DEFINE_integer(name, None, "", flag_values=values)
  flags.DEFINE_boolean("latents", False, "", flag_values=values)
  read(arguments, values)
  workdir = required(values.workdir, "workdir", "the folder of a run")
  out = pathlib.Path(required(values.out, "out", "a .png or .npz file"))
  if out.suffix not in (".png", ".npz"):
    raise UsageError(f"--out={out}: give a file that ends in .png or .npz")
  if values.latents and out.suffix != ".npz":
    raise UsageError(f"--out={out}: --latents needs a file that ends in .npz")

  from jaxflow import commands, processes

  processes.once(lambda: _check_writable(out))
  samples, labels = commands.sample(
    pathlib.Path(workdir),
    num=values.num,
    nfe=values.nfe,
    label=values.label,
    seed=values.seed,
    step=values.step,
    latents=values.latents,
  )
  if out.suffix == ".npz":
    processes.once(lambda: _save_arrays(out, samples, labels))
  else:
    processes.once(lambda: commands.save_samples(samples, out))
  say(f"{len(samples)} samples, {values.nfe} network call(s) each: {out}")
  return 0


def evaluate(arguments: list[str]) -> int:
  """Compare samples with held-out data."""
  values = flags.FlagValues()
  flags.DEFINE_string("workdir", None, "", flag_values=values)
  flags.DEFINE_list("nfe", [], "", flag_values=values)
  read(arguments, values)
  workdir = required(values.workdir, "workdir", "the folder of a run")
  nfe = whole_numbers(values.nfe, "nfe")

  from jaxflow import commands, evaluation

  rows = commands.evaluate(pathlib.Path(workdir), nfe=nfe)
  say(evaluation.table({f"NFE {r['nfe']}": r["scores"] for r in rows}))
  for row in rows:
    say(f"NFE {row['nfe']}: {row['samples_per_second']:,.0f} samples/s")
  return 0


def _save_arrays(out: pathlib.Path, samples: Any, labels: Any) -> None:
  import numpy as np

  if labels is None:
    np.savez(out, samples=samples)
  else:
    np.savez(out, samples=samples, label=labels)


def _check_writable(out: pathlib.Path) -> None:
  """Try before long work whether a file can be written."""
  try:
    out.parent.mkdir(parents=True, exist_ok=True)
    existed = out.exists()
    out.open("ab").close()
    if not existed:
      out.unlink()
  except OSError as error:
    raise UsageError(
      f"--out={out} cannot be written ({error.strerror}): give another file, "
      "or make its folder writable"
    ) from error
