"""Pictures of samples while a run trains."""

import pathlib
from collections.abc import Callable

import jax
import numpy as np

from jaxflow import data
from jaxflow.errors import named
from jaxflow.figures import optional_picture, save_samples
from jaxflow.parallel import processes
from jaxflow.runs import decoding
from jaxflow.runs.drawing import as_seen, checked_conditions, drawer
from jaxflow.runs.run import Run
from jaxflow.training.state import TrainState

_IMAGES, _POINTS = 64, 2000

# Samples `[N, ...]` of a state, None where there is nothing to show.
Previews = Callable[[TrainState], np.ndarray | None]


def make_previews(
  run: Run,
  mesh: jax.sharding.Mesh,
  shape: tuple[int, ...],
  log: Callable[[str], None],
) -> Previews:
  """Return a function that draws samples from noise that is always the same.

  All processes call it; the main process gets the samples.
  """
  plan = run.plan
  num = _POINTS if len(shape) == 1 else _IMAGES
  labels = as_seen(plan, checked_conditions(plan, num))
  with named(nfe="sample.nfe", grid="sample.grid"):
    draw = drawer(run, plan.sample.nfe, mesh)
  picture = decoding.make_picture(plan.data)

  def previews(state: TrainState) -> np.ndarray | None:
    samples = draw(state, jax.random.key(0), num, labels)
    if not processes.is_main():
      return None
    if not np.isfinite(samples).all():
      log(
        f"step {int(state.step)}: samples are not finite, no picture of them "
        "is written"
      )
      return None
    with optional_picture(f"step {int(state.step)}", log):
      return picture(samples)
    return None

  return previews


class SamplePictures:
  """Write pictures of samples, `samples/STEP.png` in a workdir.

  Args:
    workdir: The run's folder.
    source: The data set; points of it are drawn behind points.
    log: Takes a line about a picture that cannot be written.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    source: data.Source,
    log: Callable[[str], None],
  ):
    self._folder = workdir / "samples"
    self._log = log
    self._reference = None
    if len(source.shape) == 1:
      first = np.arange(min(_POINTS, len(source)))
      self._reference = source.take(first)["data"]
      scaling = data.scaling_of(source)
      if scaling is not None:
        self._reference = scaling.restore(self._reference)

  def on_samples(self, step: int, samples: np.ndarray) -> None:
    """Write the picture of a step."""
    path = self._folder / f"{step:08d}.png"
    with optional_picture(f"step {step}", self._log):
      save_samples(samples, path, reference=self._reference)
