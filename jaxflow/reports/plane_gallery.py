"""Pictures of points in the plane that a run draws.

Each function takes the samples and a file, writes the picture and returns its
caption; it raises UsageError where the picture must be left out.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow import figures, flow_maps, paths, solvers
from jaxflow.errors import UsageError
from jaxflow.parallel import processes
from jaxflow.reports.gallery_samples import GallerySamples
from jaxflow.reports.sampled_runs import SampledRun
from jaxflow.types import PyTree

_ARROWS = 150
_STEPS = 32


def _save_density(given: GallerySamples, file: pathlib.Path) -> str:
  """Show samples over the density of held-out data."""
  _, held_out = given.real
  figures.save_density(
    given.picture(given.samples), given.picture(held_out), file
  )
  return given.memorisation()


def _save_arrows(given: GallerySamples, file: pathlib.Path) -> str:
  """Show which sample each draw of noise becomes."""
  noise, _ = given.inputs(_ARROWS)
  figures.save_arrows(noise, given.samples[: len(noise)], file)
  return f"The sampler of {given.nfe} network call(s)."


def _save_trajectories(given: GallerySamples, file: pathlib.Path) -> str:
  """Show paths of the ODE of the run's velocity, or of its teacher's."""
  runs = [x for x in (given.source, given.teacher) if x is not None]
  source = next((x for x in runs if x.plan.model.method.teaches), None)
  if source is None:
    raise UsageError("the network is no velocity, and no teacher has one")
  points, times = _trajectories(source, *given.inputs(_ARROWS))
  figures.save_trajectories(points, times, file)
  return f"Of the velocity of the {source.role}, {_STEPS} steps of Heun."


def _trajectories(
  source: SampledRun, noise: np.ndarray, labels: PyTree
) -> tuple[np.ndarray, np.ndarray]:
  """Return points `[T, N, 2]` along the ODE and their times `[T]`."""
  model, sample = source.plan.model, source.plan.sample
  try:
    times = sample.grid(_STEPS + 1)
  except ValueError as error:
    grid = sample.record["sample"]["grid"]
    raise UsageError(f"sample.grid={grid}: {error}") from error
  velocity_of = model.sampled(sample)

  @jax.jit
  def follow(params):
    step = flow_maps.ode_step(velocity_of(params), solver=solvers.heun)

    def move(x, interval):
      t, s = (jnp.full(len(x), time) for time in interval)
      x = step(x, t, s, labels)
      return x, x

    first = paths.start(model.path, jnp.asarray(noise))
    given = paths.as_times(times, first)
    intervals = jnp.stack([given[:-1], given[1:]], axis=1)
    _, later = jax.lax.scan(move, first, intervals)
    return jnp.concatenate([first[None], later])

  return processes.gather(follow(source.params)), np.asarray(times)


PLANE_PICTURES = {
  "Density": _save_density,
  "From noise to samples": _save_arrows,
  "Trajectories of the probability-flow ODE": _save_trajectories,
}
"""Functions that write pictures of points, by title."""
