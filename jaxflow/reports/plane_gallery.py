"""Pictures of a run that draws points in the plane."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow import figures, flow_maps, paths, solvers
from jaxflow.errors import UsageError
from jaxflow.parallel import processes
from jaxflow.reports.gallery_data import Picture, Subject
from jaxflow.reports.sampled_runs import Contestant

_ARROWS = 150
_STEPS = 32


def plane_gallery(subject: Subject) -> Iterator[Picture]:
  """Write pictures of points.

  Args:
    subject: The run and samples of it, points in the plane.

  Yields:
    One picture after the other, or the reason why it is left out.
  """
  yield _density(subject)
  yield _map(subject)
  yield _trajectories(subject)


def _density(subject: Subject) -> Picture:
  title = "Density"
  try:
    _, held_out = subject.real
  except UsageError as error:
    return Picture(title=title, text=f"left out: {error}")
  file = subject.folder / "density.png"
  figures.save_density(subject.samples, held_out, file)
  return Picture(title=title, text=subject.memorised(), file=file)


def _map(subject: Subject) -> Picture:
  noise, _ = subject.first(_ARROWS)
  file = subject.folder / "map.png"
  figures.save_arrows(noise, subject.samples[: len(noise)], file)
  return Picture(
    title="From noise to samples",
    text=f"The sampler of {subject.nfe} network call(s).",
    file=file,
  )


def _trajectories(subject: Subject) -> Picture:
  title = "Trajectories of the probability-flow ODE"
  run = subject.run
  source = run if run.run.model.method.teaches else subject.teacher
  if source is None:
    return Picture(
      title=title,
      text="left out: the network is no velocity, and the run has no teacher",
    )
  try:
    points, times = _follow(source, *subject.first(_ARROWS))
  except UsageError as error:
    return Picture(title=title, text=f"left out: {error}")
  file = subject.folder / "trajectories.png"
  figures.save_trajectories(points, times, file)
  return Picture(
    title=title,
    text=f"Of the velocity of the {source.role}, {_STEPS} steps of Heun.",
    file=file,
  )


def _follow(
  source: Contestant, noise: np.ndarray, labels: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
  """Return points `[T, N, 2]` along the ODE and their times `[T]`."""
  model = source.run.model
  grid = model.component("grid", model.config.sample.grid, "sample.grid")
  try:
    times = grid(_STEPS + 1)
  except ValueError as error:
    raise UsageError(
      f"sample.grid={model.config.sample.grid.to_dict()}: {error}"
    ) from error
  velocity_of = model.sampled()

  @jax.jit
  def follow(params):
    step = flow_maps.ode_step(velocity_of(params), solver=solvers.heun)

    def move(x, interval):
      t, s = (jnp.full(len(x), time) for time in interval)
      x = step(x, t, s, labels)
      return x, x

    first = paths.start(model.path, jnp.asarray(noise))
    intervals = jnp.stack([times[:-1], times[1:]], axis=1)
    _, later = jax.lax.scan(move, first, intervals)
    return jnp.concatenate([first[None], later])

  return processes.gather(follow(source.params)), np.asarray(times)
