"""Commands that draw from a run: sample, bench, report."""

import pathlib
from typing import Any

from absl import flags

from jaxflow.commands.console import say
from jaxflow.commands.flags import (
  SAMPLING,
  changed_config,
  check_writable,
  read,
  read_changes,
  required,
  step_of,
  whole_numbers,
)
from jaxflow.errors import UsageError


def sample(arguments: list[str]) -> int:
  """Draw samples into a file."""
  values = flags.FlagValues()
  for name, default in (("workdir", None), ("out", None)):
    flags.DEFINE_string(name, default, "", flag_values=values)
  for name, default in (("num", 64), ("nfe", 1), ("seed", 0)):
    flags.DEFINE_integer(name, default, "", flag_values=values)
  flags.DEFINE_integer("label", None, "", flag_values=values)
  flags.DEFINE_string("step", None, "", flag_values=values)
  flags.DEFINE_boolean("latents", False, "", flag_values=values)
  changes = read_changes(arguments, values)
  workdir = pathlib.Path(
    required(values.workdir, "workdir", "the folder of a run")
  )
  out = pathlib.Path(required(values.out, "out", "a .png or .npz file"))
  if out.suffix not in (".png", ".npz"):
    raise UsageError(f"--out={out}: give a file that ends in .png or .npz")
  if values.latents and out.suffix != ".npz":
    raise UsageError(f"--out={out}: --latents needs a file that ends in .npz")

  from jaxflow import commands
  from jaxflow.parallel import processes

  processes.once(lambda: check_writable(out))
  samples, labels = commands.sample(
    workdir,
    config=changed_config(workdir, changes, SAMPLING),
    num=values.num,
    nfe=values.nfe,
    label=values.label,
    seed=values.seed,
    step=step_of(values.step),
    latents=values.latents,
  )
  if out.suffix == ".npz":
    processes.once(lambda: _save_arrays(out, samples, labels))
  else:
    processes.once(lambda: commands.save_samples(samples, out))
  say(f"{len(samples)} samples, {values.nfe} network call(s) each: {out}")
  return 0


def bench(arguments: list[str]) -> int:
  """Measure what sampling costs, beside its network calls."""
  values = flags.FlagValues()
  for name in ("workdir", "teacher"):
    flags.DEFINE_string(name, None, "", flag_values=values)
  for name in ("nfe", "batch", "teacher_nfe"):
    flags.DEFINE_list(name, [], "", flag_values=values)
  read(arguments, values)
  workdir = required(values.workdir, "workdir", "the folder of a run")
  nfe = whole_numbers(values.nfe, "nfe")
  batch = whole_numbers(values.batch, "batch")
  teacher_nfe = whole_numbers(values.teacher_nfe, "teacher_nfe")

  from jaxflow import commands, reports

  costs = commands.bench(
    pathlib.Path(workdir),
    teacher=pathlib.Path(values.teacher) if values.teacher else None,
    say=say,
    nfe=nfe,
    batch=batch,
    teacher_nfe=teacher_nfe,
  )
  say(reports.cost_table(costs))
  return 0


def report(arguments: list[str]) -> int:
  """Write what is known of a run as one page."""
  values = flags.FlagValues()
  flags.DEFINE_string("workdir", None, "", flag_values=values)
  for name in ("nfe", "num"):
    flags.DEFINE_integer(name, None, "", flag_values=values)
  read(arguments, values)
  workdir = required(values.workdir, "workdir", "the folder of a run")

  from jaxflow import commands

  file = commands.report(pathlib.Path(workdir), nfe=values.nfe, num=values.num)
  say(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
  return 0


def _save_arrays(out: pathlib.Path, samples: Any, labels: Any) -> None:
  import numpy as np

  if labels is None:
    np.savez(out, samples=samples)
  else:
    np.savez(out, samples=samples, label=labels)
