"""Draw samples from a trained run, batch by batch."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxflow.errors import UsageError
from jaxflow.parallel import processes, sharding
from jaxflow.runs.run import Run
from jaxflow.sampling.steps import unit_noise
from jaxflow.training.state import TrainState
from jaxflow.types import Array


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
