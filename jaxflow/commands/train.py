"""Train a config in a workdir."""

import pathlib
from collections.abc import Callable

import jax
import numpy as np

from jaxflow import data, rows
from jaxflow.commands import start
from jaxflow.commands.sample import class_labels, drawer, save_samples
from jaxflow.config import Config, save_config
from jaxflow.errors import UsageError
from jaxflow.limits import check_limits
from jaxflow.runs import Run, load_data
from jaxflow.training import loop, sharding
from jaxflow.training.checkpoints import Checkpoints
from jaxflow.training.logs import Log
from jaxflow.training.state import TrainState
from jaxflow.training.step import make_train_step

GRID_SIZE = 64


def train(
  config: Config,
  workdir: pathlib.Path,
  *,
  say: Callable[[str], None] = print,
) -> bool:
  """Train a config in a workdir, or go on where an earlier run stopped.

  Args:
    config: A config as `config.default_config` makes it.
    workdir: Where config, checkpoints, logs and samples go.
    say: Prints a line.

  Returns:
    Whether training reached its end; False after an interruption.

  Raises:
    UsageError: If a field is wrong; nothing in the workdir has changed then.
    RunError: If training fails; the checkpoints stay.
  """
  check_limits(config)
  if jax.process_count() > 1:
    raise UsageError(
      f"{jax.process_count()} processes: training runs in one process, with "
      "all of its devices; start one"
    )
  dataset = load_data(config, "train")
  mesh = sharding.make_mesh(**config.mesh)
  config, teacher = start.resolve(config, dataset, workdir, mesh)
  run = Run.of(config)
  options = config.train
  _check_batch(config)
  step_fn = make_train_step(
    run.loss_fn(), run.optimizer, run.emas, seed=config.seed
  )
  template = run.template(mesh)
  _check_step(step_fn, template, _batches(config, dataset, steps=1))
  on_sample = _sample_writer(run, template, workdir, dataset, say)
  teacher_params = start.teacher_parameters(run, template, teacher)

  _make_workdir(workdir)
  with start.locked(workdir):
    save_config(config, workdir / "config.json")
    checkpoints = Checkpoints(
      workdir / "checkpoints",
      keep=config.checkpoint.keep,
      keep_every=config.checkpoint.keep_every,
    )
    restored = checkpoints.restore(template)
    if restored is None:
      state, position = start.first_state(run, template, teacher_params), None
    else:
      state, position = restored
    del teacher, teacher_params  # Its optimizer and averages take up memory.
    begin = int(state.step)
    chunk = loop.steps_per_dispatch(
      options.steps_per_dispatch,
      begin,
      options.steps,
      options.log_every,
      options.sample_every,
      config.checkpoint.every,
    )
    host = _batches(config, dataset, steps=chunk)
    if position is not None:
      host.set_state(position)
    shardings = jax.tree.map(lambda x: x.sharding, template)
    jitted = jax.jit(
      step_fn,
      donate_argnums=0,
      in_shardings=(shardings, sharding.batch_sharding(mesh)),
      out_shardings=(shardings, None),
    )
    count = sum(x.size for x in jax.tree.leaves(state.params))
    say(
      f"{config.method} on {config.data.name}: {count:,} parameters, "
      f"{len(dataset):,} samples, {jax.device_count()} device(s), "
      f"{chunk} steps per dispatch, {'resumed at' if begin else 'from'} step "
      f"{begin}"
    )
    if begin >= options.steps:
      say(f"nothing to do: {workdir} is trained to step {begin}")
      checkpoints.close()
      return True
    log = Log(workdir, start=begin)
    try:
      state, finished = loop.train(
        state,
        jitted,
        data.prefetch(host, sharding.batch_sharding(mesh)),
        steps=options.steps,
        chunk=chunk,
        batch_size=options.batch_size,
        log_every=options.log_every,
        checkpoint_every=config.checkpoint.every,
        sample_every=options.sample_every,
        max_skipped=options.max_skipped,
        learning_rate=run.learning_rate,
        checkpoints=checkpoints,
        log=log,
        on_sample=on_sample,
        say=say,
      )
    finally:
      log.close()
      checkpoints.close()
    if not finished:
      say(
        f"interrupted: saved step {int(state.step)} in {workdir}; the same "
        "command goes on from there"
      )
    return finished


def _batches(
  config: Config, dataset: data.Dataset, *, steps: int
) -> data.Batches:
  """Return the stream of batches, for so many steps at a time."""
  return data.Batches(
    dataset,
    batch_size=config.train.batch_size,
    seed=config.seed,
    stack=(steps, config.train.accumulate),
  )


def _check_batch(config: Config) -> None:
  batch_size, accumulate = config.train.batch_size, config.train.accumulate
  count = jax.device_count() * accumulate
  if batch_size % count:
    raise UsageError(
      f"train.batch_size={batch_size} is no multiple of {count} "
      f"({jax.device_count()} devices x train.accumulate={accumulate}): "
      f"use {-(-batch_size // count) * count}"
    )
  if "block" in config.loss:
    try:
      rows.check_block(config.loss.block, batch_size // accumulate)
    except ValueError as error:
      raise UsageError(
        f"loss.block={config.loss.block} with train.batch_size={batch_size}, "
        f"train.accumulate={accumulate}: {error}"
      ) from error


def _check_step(
  step_fn: Callable, template: TrainState, batches: data.Batches
) -> None:
  """Trace the step without compiling, so that a wrong option fails at once."""
  try:
    jax.eval_shape(step_fn, template, next(batches))
  except UsageError:
    raise
  except ValueError as error:
    raise UsageError(f"loss: {error}") from error


def _make_workdir(workdir: pathlib.Path) -> None:
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    probe = workdir / ".writable"
    probe.touch()
    probe.unlink()
  except OSError as error:
    raise UsageError(
      f"--workdir={workdir} cannot be written ({error.strerror}): give "
      "another folder, or make it writable"
    ) from error


def _sample_writer(
  run: Run,
  template: TrainState,
  workdir: pathlib.Path,
  dataset: data.Dataset,
  say: Callable[[str], None],
) -> Callable[[TrainState, int], None]:
  """Return what writes a picture of samples from fixed noise."""
  points = dataset.data.ndim == 2
  num = 2000 if points else GRID_SIZE
  labels = class_labels(run.model.num_classes, num, None)
  reference = dataset.data[:num] if points else None
  options = run.model.config.sample
  run.select(template, options.ema, "sample.ema")
  draw = drawer(run, options.nfe, "sample.nfe")

  def write(state, step):
    samples = np.asarray(draw(state, jax.random.key(0), num, labels))
    if not np.isfinite(samples).all():
      say(f"step {step}: samples are not finite, no picture of them is written")
      return
    path = workdir / "samples" / f"{step:08d}.png"
    save_samples(samples, path, reference=reference)

  return write
