"""Pairs of noise and sample, made by runs of several seeds."""

import dataclasses
import hashlib
import pathlib

from experiments.runner.fits import Fits
from jaxflow.runs import pair_generation
from jaxflow.runs.pair_generation import PairOptions


def make_pairs(teacher: Fits, options: PairOptions) -> pathlib.Path:
  """Solve the teacher's ODE from fresh noise, other noise for each seed.

  Args:
    teacher: Runs that predict a velocity.
    options: How many pairs, solver, network calls, guidance, seed.

  Returns:
    The folder of all pairs: those of seed i are in `seed_i`.
  """
  text = f"{teacher.steps} {options}"
  name = f"pairs-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
  folder = teacher.folder / name
  for seed in teacher.seeds:
    made = pair_generation.make_pairs(
      teacher.workdir(seed),
      folder / f"seed_{seed}",
      dataclasses.replace(options, seed=1000 * options.seed + seed),
      step=teacher.steps,
      log=lambda line: None,
    )
    if not made:
      raise KeyboardInterrupt
  return folder
