"""Draw samples from a trained run."""

import pathlib

import jax
import numpy as np

from jaxflow import config as config_lib
from jaxflow.errors import RunError, UsageError
from jaxflow.parallel import processes, sharding
from jaxflow.runs import decoding
from jaxflow.runs.drawing import class_labels, drawer
from jaxflow.runs.restoring import restore
from jaxflow.runs.run import Run

__all__ = ["sample"]


def sample(
  workdir: pathlib.Path,
  *,
  num: int,
  nfe: int,
  label: int | None = None,
  seed: int = 0,
  step: int | str | None = None,
  config: config_lib.Config = None,
  latents: bool = False,
) -> tuple[np.ndarray, np.ndarray | None]:
  """Draw samples from a trained run.

  Args:
    workdir: The run's folder.
    num: How many samples.
    nfe: Network calls per sample.
    label: The class of all samples; default: classes in turn.
    seed: Seed of the noise.
    step: The checkpoint; default: the latest; "best": the one kept as such.
    config: The run's config with changes in `sample`; default: as saved.
    latents: Where samples are latents, keep them, as the autoencoder has them.

  Returns:
    Samples `[num, ...]`, of latents the images, and their labels `[num]` or
    None.

  Raises:
    UsageError: If an argument is out of range or the workdir holds no run.
    RunError: If samples are not finite.
  """
  if num < 1:
    raise UsageError(f"num={num}: give at least 1")
  plan = config_lib.make_plan(config or config_lib.load_config(workdir))
  labels = class_labels(plan.model.num_classes, num, label)
  finish = decoding.make_latents if latents else decoding.make_picture
  finished = finish(plan.data)
  run, mesh = Run(plan), sharding.fitting_mesh(plan.mesh)
  draw = drawer(run, nfe, mesh)
  state = restore(run, workdir, mesh=mesh, step=step, ema=plan.sample.ema)
  samples = draw(state, jax.random.key(seed), num, labels)
  if not np.isfinite(samples).all():
    raise RunError(
      f"workdir={workdir}: samples of step {int(state.step)} are not finite: "
      "training diverged; give an earlier step, or train again"
    )
  # What the others hold is never shown.
  return finished(samples) if processes.is_main() else samples, labels
