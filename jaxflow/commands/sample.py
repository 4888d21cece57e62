"""Draw samples from a trained run."""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxflow import evaluation, pictures, processes
from jaxflow.config import Config
from jaxflow.config.files import load_config
from jaxflow.errors import RunError, UsageError
from jaxflow.runs import Run, load
from jaxflow.samplers.steps import unit_noise
from jaxflow.training import sharding
from jaxflow.training.state import TrainState
from jaxflow.types import Array


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
  finish = pictures.make_latents if latents else pictures.make_picture
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


def class_labels(
  num_classes: int, num: int, label: int | None
) -> np.ndarray | None:
  """Return the labels `[num]` of samples, or None without classes.

  Args:
    num_classes: Number of classes; 0 for an unconditional model.
    num: Number of samples.
    label: The class of all; default: the classes in turn.

  Raises:
    UsageError: If there is no such class.
  """
  if not num_classes:
    if label is not None:
      raise UsageError(
        f"--label={label}: the model is unconditional; leave it out"
      )
    return None
  if label is None:
    return np.arange(num, dtype=np.int32) % num_classes
  if not 0 <= label < num_classes:
    raise UsageError(
      f"--label={label} is out of range: give 0 to {num_classes - 1}"
    )
  return np.full(num, label, np.int32)


Batch = tuple[int, int, Array]


def streamer(
  run: Run, nfe: int, field: str, mesh: jax.sharding.Mesh
) -> Callable[..., Iterator[Batch]]:
  """Return what draws batches of samples that stay on the devices.

  Sample i is a function of the seed, i and its label: the size of the batch in
  which it is drawn, and the devices, change it by rounding only.

  Args:
    run: The run.
    nfe: Network calls per sample.
    field: The flag or config field that asks for so many, for messages.
    mesh: The devices, of all processes.

  Returns:
    `(state, key, num, labels, first=0, size=None, ema=None) -> batches`:
    samples `first` to `num`, `size` at a time, by default `sample.batch_size`,
    of the average `ema`, by default `sample.ema`. A batch is the number of its
    first sample, how many of its rows count, and the rows.
  """
  model = run.model
  sampler = model.make_sampler(nfe, field)

  @jax.jit
  def draw_batch(params, key_data, index, labels):
    if len(index) % sharding.row_shards(mesh) == 0:
      rows = sharding.row_sharding(mesh)
      index = jax.lax.with_sharding_constraint(index, rows)
    key = jax.random.wrap_key_data(key_data)
    both = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i)))
    noise_keys, step_keys = both(index).T
    noise = unit_noise(noise_keys, (len(index), *model.shape))
    return sharding.over(mesh, sampler)(params, noise, step_keys, labels)

  def stream(state, key, num, labels, first=0, size=None, ema=None):
    options = model.config.sample
    params = run.select(state, ema or options.ema, "sample.ema")
    size = min(num, size or options.batch_size)
    key_data = np.asarray(jax.random.key_data(key))
    for start in range(first, num, size):
      # The last batch is as long as the others: one program draws all.
      index = np.arange(start, start + size, dtype=np.uint32)
      given = None if labels is None else np.asarray(labels)[index % num]
      batch = draw_batch(params, key_data, index, given)
      yield start, min(size, num - start), batch

  return stream


def drawer(
  run: Run, nfe: int, field: str, mesh: jax.sharding.Mesh
) -> Callable[[TrainState, Array, int, Any], np.ndarray]:
  """Return `(state, key, num, labels) -> samples`, all of them, on every host.

  Args:
    run: The run.
    nfe: Network calls per sample.
    field: The flag or config field that asks for so many, for messages.
    mesh: The devices, of all processes.
  """
  stream = streamer(run, nfe, field, mesh)

  def draw(state, key, num, labels):
    batches = stream(state, key, num, labels)
    return np.concatenate([processes.gather(x)[:n] for _, n, x in batches])

  return draw


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
    evaluation.save_grid(samples, path, labels=captions)
  else:
    evaluation.save_points(samples, path, reference)
