"""Draw samples from a trained run."""

import pathlib

import jax
import numpy as np

from jaxflow import figures
from jaxflow.config import Config
from jaxflow.config.files import load_config
from jaxflow.errors import RunError, UsageError
from jaxflow.parallel import processes, sharding
from jaxflow.runs import decoding
from jaxflow.runs.drawing import class_labels, drawer
from jaxflow.runs.run import Run, load


def sample(
  workdir: pathlib.Path,
  *,
  num: int,
  nfe: int,
  label: int | None = None,
  seed: int = 0,
  step: int | str | None = None,
  config: Config = None,
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
    raise UsageError(f"--num={num}: give at least 1")
  config = config or load_config(workdir, field="--workdir")
  labels = class_labels(config.data.num_classes, num, label)
  finish = decoding.make_latents if latents else decoding.make_picture
  finished = finish(config)
  mesh = sharding.fitting_mesh(config.mesh)
  draw = drawer(Run.of(config), nfe, "--nfe", mesh)
  _, state = load(
    workdir,
    field="--workdir",
    mesh=mesh,
    config=config,
    step=step,
    ema=config.sample.ema,
  )
  samples = draw(state, jax.random.key(seed), num, labels)
  if not np.isfinite(samples).all():
    raise RunError(
      f"--workdir={workdir}: samples of step {int(state.step)} are not finite: "
      "training diverged; give an earlier --step, or train again"
    )
  # What the others hold is never shown.
  return finished(samples) if processes.is_main() else samples, labels


def save_samples(
  samples: np.ndarray,
  path: pathlib.Path,
  *,
  labels: np.ndarray | None = None,
  reference: np.ndarray | None = None,
) -> None:
  """Write samples as a picture: a grid of images or a scatter of points.

  Args:
    samples: Images `[N, H, W, C]` or points `[N, 2]`.
    path: A .png file; its folder is made.
    labels: Captions of images `[N]`.
    reference: Real points to draw behind.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  if samples.ndim == 4:
    captions = None if labels is None else [str(x) for x in labels]
    figures.save_grid(samples, path, labels=captions)
  else:
    figures.save_points(samples, path, reference)
