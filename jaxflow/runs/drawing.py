"""Draw samples from a trained run, batch by batch."""

import math
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxflow import conditions, data
from jaxflow.errors import UsageError, did_you_mean, named
from jaxflow.parallel import memory, processes, sharding
from jaxflow.plans import Plan
from jaxflow.reading import reading
from jaxflow.runs.opening import load_data
from jaxflow.runs.run import Run
from jaxflow.sampling.steps import unit_noise
from jaxflow.training.state import TrainState
from jaxflow.types import Array, PyTree

# Bytes of a value of a sample: it is drawn, gathered, and joined to others.
_BYTES = 16
# Classes that a message names.
_LISTED = 20


def check_num(
  num: int, shape: tuple[int, ...], null_cond: PyTree = None
) -> None:
  """Raise UsageError unless the host's memory can hold so many samples."""
  one = _BYTES * math.prod(shape) + conditions.num_bytes(null_cond)
  # A sample's number is a word of 32 bits.
  most = min(memory.of_host() // one, 2**32)
  if not 1 <= num <= most:
    need = "at least 1" if num < 1 else f"at most {most}: more exceed memory"
    raise UsageError(f"num={num}: give {need}")


def checked_labels(
  num_classes: int,
  num: int,
  labels: ArrayLike | None,
  names: Sequence[str] | None = None,
) -> np.ndarray | None:
  """Return the labels `[num]` of samples, or None without classes.

  Args:
    num_classes: Number of classes; 0 for an unconditional model.
    num: Number of samples.
    labels: The classes `[num]`, or one for all, as numbers or by name; None:
      the classes in turn.
    names: The names of the classes, if they have any.
  """
  if not num_classes:
    if labels is not None:
      raise UsageError(
        f"labels={labels}: the model is unconditional; leave it out"
      )
    return None
  if labels is None:
    return np.arange(num, dtype=np.int32) % num_classes
  given = np.asarray(labels)
  if given.dtype.kind == "U":
    numbers = [_number(str(x), num_classes, names or ()) for x in given.flat]
    given = np.array(numbers, int).reshape(given.shape)
  if given.dtype.kind not in "iu" or given.shape not in ((), (num,)):
    raise UsageError(
      f"labels of type {given.dtype} and shape {given.shape}: give one whole "
      f"number, or {num} of them"
    )
  wrong = given[(given < 0) | (given >= num_classes)]
  if wrong.size:
    raise UsageError(
      f"labels={int(wrong.flat[0])} is out of range: give 0 to "
      f"{num_classes - 1}"
    )
  return np.broadcast_to(given, (num,)).astype(np.int32)


def checked_conditions(
  plan: Plan,
  num: int,
  labels: ArrayLike | None = None,
  cond: PyTree = None,
  *,
  seed: int = 0,
) -> PyTree:
  """Return the conditions of samples in units of the data, or None without.

  Classes are those of `checked_labels`. Conditions that are numbers are vectors
  `[num, K]`. Those that a network declares are pytrees of arrays `[num, ...]`.

  Args:
    plan: The plan of a run.
    num: Number of samples.
    labels: Classes, or numbers `[num, K]`, or `[K]` for all, or as text with
      commas between, one for all or `[num]`; None: the classes in turn, or
      vectors of the training data, chosen at random.
    cond: What a network declares, as `conditions.of_samples` takes it; None:
      the conditions of the test split in turn, of the training split if there
      is no other.
    seed: Of that choice.
  """
  model, scales = plan.model, plan.data.conditions
  if plan.declares_condition:
    return _declared_conditions(plan, num, labels, cond)
  if cond is not None:
    raise UsageError(
      "cond: the network of this run declares no condition: leave it out, and "
      "give labels where there are any"
    )
  if scales is None:
    names = plan.data.class_names
    return checked_labels(model.num_classes, num, labels, names)
  size = len(scales.offset)
  if labels is None:
    return _of_training_data(plan, num, seed)
  try:
    given = np.asarray(labels)
    if given.dtype.kind == "U":
      numbers = [[y.strip() for y in str(x).split(",")] for x in given.flat]
      labels = numbers if given.shape else numbers[0]
    given = np.asarray(labels, np.float64)
    if size > 1 and given.shape[-1:] != (size,):
      raise ValueError
    each = given.shape == (num,) and size == 1
    found = np.broadcast_to(given[:, None] if each else given, (num, size))
  except ValueError as error:
    raise UsageError(
      f"labels={labels}: give {size} number(s), or {num} times {size}"
    ) from error
  if np.isinf(found).any():
    raise UsageError(f"labels={labels}: give finite numbers, or nan for none")
  # A vector has all of its numbers, or is none.
  return np.where(np.isnan(found).any(axis=1, keepdims=True), np.nan, found)


def labels_in_text(plan: Plan, text: str) -> list[str]:
  """Return the labels of a text with commas between.

  It is one where labels are vectors, or where a class has this name.
  """
  if plan.data.conditions is not None or text in (plan.data.class_names or ()):
    return [text]
  return [label.strip() for label in text.split(",")]


def labels_in_file(plan: Plan, file: pathlib.Path) -> list[str]:
  """Return the labels in a text file, one a line.

  Raises:
    UsageError: A line is no label, or there is none.
  """
  where = f"labels_file={str(file)!r}"
  try:
    with reading(where, "give a text file with a label in each line"):
      lines = [line.strip() for line in file.read_text().splitlines()]
  except (FileNotFoundError, NotADirectoryError) as error:
    raise UsageError(f"{where} is not there: give a text file") from error
  for line in dict.fromkeys(lines):
    with named(labels=f"{where}, line {lines.index(line) + 1}"):
      checked_conditions(plan, 1, [line])
  if not lines:
    raise UsageError(f"{where} is empty: give a label in each line")
  return lines


def in_turn(labels: Sequence[str], num: int) -> np.ndarray:
  """Return labels [num]: those given, in turn; none is left out.

  Example:
    >>> in_turn(["0", "3"], 5).tolist()
    ['0', '3', '0', '3', '0']
  """
  if num < len(labels):
    raise UsageError(
      f"num={num}: {len(labels)} labels are given; give at least as many "
      "samples"
    )
  return np.resize(np.array(labels), num)


def _of_training_data(plan: Plan, num: int, seed: int) -> np.ndarray:
  """Return vectors of random training samples."""
  assert plan.data.conditions is not None
  try:
    source = processes.together(lambda: load_data(plan.data, "train"))
  except UsageError as error:
    raise UsageError(
      "labels=None takes those of random training data, and these are not "
      f"there: give numbers ({error})"
    ) from error
  index = np.random.default_rng(seed).integers(len(source), size=num)
  found = processes.together(lambda: source.take(index)["cond"])
  return plan.data.conditions.restore(found)


def _declared_conditions(
  plan: Plan, num: int, labels: ArrayLike | None, cond: PyTree
) -> PyTree:
  """Return given conditions, or those of held-out data."""
  null_cond = plan.model.null_cond
  if labels is not None:
    raise UsageError(
      f"labels={labels}: the condition of this run is "
      f"{conditions.describe(null_cond)}: give it as cond"
    )
  of_data = cond is None
  if of_data:
    cond = processes.together(lambda: _of_test_data(plan, num))
  try:
    found = conditions.of_samples(cond, null_cond, num)
    conditions.check_values(found, null_cond)
  except ValueError as error:
    where = f"data.name={plan.data.name!r}: cond" if of_data else "cond"
    raise UsageError(f"{where}: {error}") from error
  return found


def _of_test_data(plan: Plan, num: int) -> PyTree:
  """Return the conditions of at most `num` held-out samples."""
  try:
    source = _held_out(plan)
  except UsageError as error:
    raise UsageError(
      "cond=None takes conditions of the data, and these are not there: give "
      f"cond ({error})"
    ) from error
  return source.take(np.arange(min(num, len(source)))).get("cond")


def _held_out(plan: Plan) -> data.Source:
  """Return the test split, the training split if there is no other."""
  try:
    return load_data(plan.data, "test")
  except data.NoSplitError:
    return load_data(plan.data, "train")


def as_seen(plan: Plan, cond: PyTree) -> PyTree:
  """Return conditions in units of the data as the network sees them."""
  scales = plan.data.conditions
  if scales is None or cond is None:
    return cond
  return scales.normalise(cond)


def _number(label: str, num_classes: int, names: Sequence[str]) -> int:
  """Return the number of a class; a name goes before a number."""
  if label in names:
    return names.index(label)
  if re.fullmatch(r"-?\d+", label):
    return int(label)
  there = ", ".join(names[:_LISTED]) + ", ..." * (len(names) > _LISTED)
  known = f"or one of {there}" if names else "its classes have no names"
  raise UsageError(
    f"labels={label!r}: {did_you_mean(label, names)}give 0 to "
    f"{num_classes - 1}, {known}"
  )


Batch = tuple[int, int, Array]
Stream = Callable[..., Iterator[Batch]]


def streamer(run: Run, nfe: int, mesh: jax.sharding.Mesh) -> Stream:
  """Return a stream of batches of samples that stay on the devices.

  A run has one for each number of calls, which all who draw share: it is
  compiled once for each size of batch. Sample i is a function of the seed, i
  and its condition: the size of the batch in which it is drawn, and the
  devices, change it by rounding only.

  Returns:
    `(state, key, num, labels, first=0, size=None, ema=None) -> batches`:
    samples `first` to `num`, `size` at a time, by default `sample.batch_size`,
    of the average `ema`, by default `sample.ema`. A batch is the number of its
    first sample, how many of its rows count, and the rows.
  """
  if (nfe, mesh) not in run.streams:
    run.streams[nfe, mesh] = _new_stream(run, nfe, mesh)
  return run.streams[nfe, mesh]


def _new_stream(run: Run, nfe: int, mesh: jax.sharding.Mesh) -> Stream:
  """Return a stream, as `streamer`, that nobody has compiled."""
  model, options = run.model, run.plan.sample
  sampler = run.make_sampler(nfe)

  @jax.jit
  def draw_batch(params, key_data, index, labels):
    if len(index) % sharding.row_shards(mesh) == 0:
      rows = sharding.row_sharding(mesh)
      index = jax.lax.with_sharding_constraint(index, rows)
    key = jax.random.wrap_key_data(key_data)
    both = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i)))
    noise_keys, step_keys = both(index).T
    noise = unit_noise(noise_keys, (len(index), *model.shape))
    return sharding.with_mesh(mesh, sampler)(params, noise, step_keys, labels)

  def stream(state, key, num, labels, first=0, size=None, ema=None):
    params = run.select(state, ema or options.ema)
    labels = jax.tree.map(np.asarray, labels)
    size = min(num, size or options.batch_size)
    key_data = np.asarray(jax.random.key_data(key))
    for start in range(first, num, size):
      # The last batch is as long as the others: one program draws all.
      index = np.arange(start, start + size, dtype=np.uint32)
      given = conditions.rows(labels, index % num)
      batch = draw_batch(params, key_data, index, given)
      yield start, min(size, num - start), batch

  return stream


def drawer(
  run: Run, nfe: int, mesh: jax.sharding.Mesh
) -> Callable[[TrainState, Array, int, Any], np.ndarray]:
  """Return `(state, key, num, labels) -> samples`, all on every host."""
  stream = streamer(run, nfe, mesh)

  def draw(state, key, num, labels):
    batches = stream(state, key, num, labels)
    return np.concatenate([processes.gather(x)[:n] for _, n, x in batches])

  return draw
