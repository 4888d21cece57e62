"""The training loop: dispatch steps, log, save, sample, stop cleanly."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import jax

from jaxflow.errors import RunError
from jaxflow.training.callbacks import Callbacks
from jaxflow.training.checkpoints import Checkpoints, NoCheckpoints
from jaxflow.training.clock import Clock
from jaxflow.training.state import TrainState
from jaxflow.training.step import FIRST
from jaxflow.types import Array, Batch

# Seconds between looks at batches and devices.
_POLL = 0.001

StepFn = Callable[[TrainState, Batch], tuple[TrainState, Mapping[str, Array]]]


class Batches(Protocol):
  """Device batches that can be resumed."""

  def __next__(self) -> Batch:
    """Return leaves `[steps, micro-batches, rows, ...]`, up to the end."""
    ...

  def get_state(self) -> Any:
    """Return the position, as JSON."""
    ...

  @property
  def ready(self) -> bool:
    """Whether the next batch is there."""
    ...

  @property
  def waited(self) -> float:
    """Seconds that `next` has waited, in all."""
    ...


def steps_per_dispatch(
  wanted: int, every: Iterable[int], ends: Iterable[int] = ()
) -> int:
  """Return how many steps a dispatch takes, at most `wanted`.

  Logs and checkpoints fall between dispatches: the number divides each of
  `every`; what is due every 0 steps never comes. Training may begin and end
  within: the first and the last dispatch are then shorter, a program of their
  own. A number that divides the `ends` too is preferred if it is at least half
  of `wanted`.

  Example:
    >>> steps_per_dispatch(25, [100, 1000, 0], [23])
    25
    >>> steps_per_dispatch(25, [100], [40])
    20
  """
  common = math.gcd(*every)
  whole = _largest_divisor(math.gcd(common, *ends), wanted)
  return whole if 2 * whole >= wanted else _largest_divisor(common, wanted)


def _largest_divisor(number: int, limit: int) -> int:
  """Return the largest divisor of a number, 0 having all, up to a limit."""
  return next(n for n in range(limit, 0, -1) if number % n == 0)


def train(
  state: TrainState,
  train_step: StepFn,
  batches: Batches,
  *,
  steps: int,
  batch_size: int,
  log_every: int,
  checkpoint_every: int,
  sample_every: int,
  max_skipped: int,
  learning_rate: Callable[[int], Any],
  checkpoints: Checkpoints | NoCheckpoints,
  callbacks: Callbacks,
  on_sample: Callable[[TrainState, int], None],
  on_steps: Callable[[TrainState, int, Any], None],
  interrupted: Callable[[], bool],
  fault: Callable[[Batch], str] = lambda batch: "",
  seconds: float = 0.0,
  log: Callable[[str], None] = print,
) -> tuple[TrainState, bool]:
  """Train until `steps`, an interruption or too many skipped steps in a row.

  An interruption is asked for between dispatches; then the state is saved. No
  checkpoint is due while steps are being skipped: parameters that give no
  finite loss must not push out those that did.

  Args:
    state: Where to start; donated.
    train_step: The jitted step; takes as many steps as batches have.
    batches: Batches on the devices.
    steps: Step at which training ends.
    batch_size: Samples a step.
    log_every: Steps between reports of scalars; the first step has one too.
    checkpoint_every: Steps between checkpoints.
    sample_every: Steps between calls of `on_sample`; 0: only at the end.
    max_skipped: Steps skipped in a row after which training stops.
    learning_rate: The schedule, for the log.
    checkpoints: Where to save.
    callbacks: Told of scalars and checkpoints.
    on_sample: Called with the state and the step.
    on_steps: Called after every dispatch with state, step and data position.
    interrupted: Whether to stop, as `processes.interruption` gives it.
    fault: Says what is wrong with a batch, "" if nothing is.
    seconds: How long the run has trained before.
    log: Takes a line.

  Returns:
    The last state, and whether training reached `steps` undisturbed.

  Raises:
    RunError: If `max_skipped` steps in a row were not finite; nothing is saved
      then, so the last good checkpoint stays the latest.
  """
  step = int(state.step)
  clock = Clock(step=step, batch_size=batch_size, seconds=seconds)
  first = True
  batch: Batch = {}
  compiled: set[int] = set()
  while step < steps and not interrupted():
    _settle(state, batches)
    batch = next(batches)
    count = len(jax.tree.leaves(batch)[0])
    if count in compiled:
      state, metrics = train_step(state, batch)
    else:
      # Steps of another length may still run: their time is not skipped.
      jax.block_until_ready(state)
      began = time.perf_counter()
      state, metrics = _compile_step(train_step, state, batch, log)
      clock.skip(time.perf_counter() - began, count)
      compiled.add(count)
    alone = {k: v for k, v in metrics.items() if k.startswith(FIRST)}
    metrics = {k: v for k, v in metrics.items() if k not in alone}
    if not step and min(log_every, steps) > 1:
      # The curves begin with the weights as they were made.
      begun = _scalars({k.removeprefix(FIRST): v for k, v in alone.items()})
      if begun:
        begun |= {"skipped": 0, "learning_rate": float(learning_rate(0))}
        callbacks.on_log(1, begun | {"seconds": clock.seconds()})
    step += count
    if step % log_every == 0 or step >= steps or first:
      _check_skipped(state, step, max_skipped, checkpoints, fault, batch)
    if step % log_every == 0 or step >= steps:
      speed, data_wait = clock.lap(step, batches.waited)
      scalars = _scalars(metrics)
      if metrics.get("skipped", 1):
        scalars = {"loss": float(metrics["loss"])} | scalars
      scalars["skipped"] = int(state.skipped)
      updates = int(state.updates)
      scalars["learning_rate"] = float(learning_rate(updates - 1))
      if speed:
        scalars["samples_per_second"] = speed
        scalars["data_wait"] = data_wait
      callbacks.on_log(step, scalars | {"seconds": clock.seconds()})
    if first:
      clock.start(step, batches.waited)
      first = False
    due = step % checkpoint_every == 0 and step < steps
    if due and not int(state.skipped_in_row):
      checkpoints.save(step, state, batches.get_state())
      if checkpoints.folder is not None:
        callbacks.on_checkpoint(step)
    if sample_every and step % sample_every == 0 and step < steps:
      on_sample(state, step)
    if step < steps:
      began = time.perf_counter()
      on_steps(state, step, batches.get_state())
      clock.skip(time.perf_counter() - began)
  # A short run that ends in skipped steps has diverged as well.
  limit = min(max_skipped, steps // 2 + 1) if step >= steps else max_skipped
  _check_skipped(state, step, limit, checkpoints, fault, batch)
  checkpoints.save(step, state, batches.get_state())
  checkpoints.wait()
  if checkpoints.folder is not None:
    callbacks.on_checkpoint(step)
  if step >= steps:
    on_sample(state, step)
    on_steps(state, step, batches.get_state())
  return state, step >= steps and not interrupted()


def _scalars(metrics: Mapping[str, Array]) -> dict[str, float]:
  """Return the metrics that a step measured, the loss first.

  Nothing measured the loss where all steps were those of companions.
  """
  values = {"loss": metrics["loss"], **metrics}
  values = {k: float(v) for k, v in values.items()}
  return {k: v for k, v in values.items() if not math.isnan(v)}


def _compile_step(
  train_step: StepFn,
  state: TrainState,
  batch: Batch,
  log: Callable[[str], None],
) -> tuple[TrainState, Mapping[str, Array]]:
  """Dispatch steps for the first time and say how long compiling took."""
  log("compiling the training step ...")
  began = time.perf_counter()
  result = jax.block_until_ready(train_step(state, batch))
  log(f"compiled in {time.perf_counter() - began:.1f} s")
  return result


def _settle(state: TrainState, batches: Batches) -> None:
  """Wait for the next batch or for the devices, whichever is first.

  Waiting in `next` is then time in which the devices had nothing to do.
  """
  # An array has this method, whatever its abstract type says.
  step: Any = state.step
  while not (batches.ready or step.is_ready()):
    time.sleep(_POLL)


def _check_skipped(
  state: TrainState,
  step: int,
  limit: int,
  checkpoints: Checkpoints | NoCheckpoints,
  fault: Callable[[Batch], str],
  batch: Batch,
) -> None:
  count = int(state.skipped_in_row)
  if count < limit:
    return
  saved = checkpoints.steps()
  where = f"{checkpoints.folder}/{saved[-1]}" if saved else "none"
  remedy = (batch and fault(batch)) or (
    "train in a new workdir with a lower optimizer.learning_rate, or with "
    "optimizer.clip_norm"
  )
  raise RunError(
    f"loss or gradient was not finite in {count} steps in a row up to step "
    f"{step} (limit {limit}, train.max_skipped); last good checkpoint: "
    f"{where}; {remedy}"
  )
