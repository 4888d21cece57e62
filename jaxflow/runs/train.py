"""Train a config, in a workdir or in memory."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import signal
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from jaxflow import config as config_lib
from jaxflow import data
from jaxflow.errors import UsageError, named, option_of
from jaxflow.evaluation.during_training import missing_last, watcher
from jaxflow.models import Network
from jaxflow.parallel import folders, memory, processes, sharding
from jaxflow.plans import CompanionPlan, DataPlan, Plan
from jaxflow.runs import inputs, start
from jaxflow.runs.decoding import is_drawn
from jaxflow.runs.initial_weights import Beginning, beginning
from jaxflow.runs.latent_notes import latent_notes
from jaxflow.runs.messages import (
  first_line,
  last_line,
  next_command,
  schedule_note,
)
from jaxflow.runs.previews import Previews, SamplePictures, make_previews
from jaxflow.runs.run import Run
from jaxflow.training import loop
from jaxflow.training.callbacks import Callbacks, Start
from jaxflow.training.checkpoints import Checkpoints, NoCheckpoints
from jaxflow.training.convolutions import convolves
from jaxflow.training.csv_log import CsvLog
from jaxflow.training.progress import ProgressLines
from jaxflow.training.state import BASE, TrainState
from jaxflow.training.tensorboard_log import TensorBoardLog
from jaxflow.types import LossFunction


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
  """The end of training.

  Attributes:
    run: The run.
    state: Its last state.
    finished: Whether training reached its end; False after an interruption.
  """

  run: Run
  state: TrainState
  finished: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Prepared:
  """A run that is checked, before anything of it is written.

  Attributes:
    run: The run, of its resolved config.
    mesh: The devices.
    template: The shapes of its state.
    step: Its jitted training step.
    slow_loop: Whether the devices are slower at its steps within a loop.
    inputs: Its data.
    previews: Draws samples.
    first_state: Makes the state of a run that begins.
    notes: Lines to print.
  """

  run: Run
  mesh: jax.sharding.Mesh
  template: TrainState
  step: loop.StepFn
  slow_loop: bool
  inputs: inputs.Inputs
  previews: Previews
  first_state: Callable[[], TrainState]
  notes: list[str]


def train(
  config: config_lib.Config,
  workdir: pathlib.Path | None,
  *,
  sources: Mapping[str, data.Source] | None = None,
  network: Network | None = None,
  loss: LossFunction | None = None,
  callbacks: Iterable[Any] = (),
  log: Callable[[str], None] = print,
) -> Trained:
  """Train a config, or go on where an earlier run in the workdir stopped.

  Args:
    config: A config as `config.default_config` makes it.
    workdir: Where config, checkpoints, logs and samples go; None keeps
      everything in memory.
    sources: Data by split, in place of the set that the config names.
    network: The network in place of the config's.
    loss: The loss in place of the method's.
    callbacks: As `training.callbacks.Callbacks` takes them.
    log: Takes each line of progress.
  """
  with processes.interruption() as interrupted, contextlib.ExitStack() as stack:
    prepared = _prepare(config, workdir, sources, network, loss, log)
    plan = prepared.run.plan
    checkpoints: Checkpoints | NoCheckpoints = NoCheckpoints()
    if workdir is not None:

      def begin_writing():
        folders.make_workdir(workdir)
        stack.enter_context(folders.locked(workdir))
        config_lib.save_config(plan.config, workdir / "config.json")

      with named(folder="workdir"):
        processes.once(begin_writing)
      checkpoints = Checkpoints(
        workdir / "checkpoints",
        keep=plan.checkpoint.keep,
        keep_every=plan.checkpoint.keep_every,
      )
    for note in prepared.notes:
      log(note)
    stack.callback(checkpoints.close)
    restored = checkpoints.restore(prepared.template)
    state, position = restored or (prepared.first_state(), None)
    if restored is None:
      checkpoints.begin(state)
    # `first_state` holds parameters of other runs: free them before training.
    prepared = dataclasses.replace(prepared, first_state=lambda: state)
    del restored
    return _run(
      prepared,
      state,
      position,
      workdir,
      checkpoints,
      callbacks,
      interrupted,
      log,
    )


def _prepare(
  config: config_lib.Config,
  workdir: pathlib.Path | None,
  sources: Mapping[str, data.Source] | None,
  network: Network | None,
  loss: LossFunction | None,
  log: Callable[[str], None],
) -> _Prepared:
  """Read data and other runs, and check all that can be checked."""
  config_lib.check_limits(config)
  config_lib.evaluation_plan(config)
  mesh = sharding.make_mesh(**config_lib.mesh_axes(config))
  processes.check_same(str(config.to_dict()), "the config")
  if workdir is not None:
    folders.check_shared(workdir)
  method = config_lib.method_of(config)
  given = processes.together(
    lambda: inputs.read_inputs(method, config_lib.data_plan(config, sources))
  )
  real = given.real
  processes.check_same(
    f"{real.name} {real.split} {len(real)} {real.shape}", "the data set"
  )
  config, others, notes = start.resolve(config, given, workdir, mesh)
  plan = config_lib.make_plan(config, network=network, loss=loss, data=sources)
  run = Run(plan)
  for source in (given.real, given.paired):
    if source is not None:
      processes.together(lambda x=source: inputs.check_condition(plan.model, x))
  inputs.check_second_time(plan)
  inputs.check_order(plan)
  inputs.check_mesh(plan, mesh)
  inputs.check_filling(plan)
  processes.together(lambda: inputs.check_coupling(plan, real, mesh))
  inputs.check_scale(plan.model, plan.data)
  _check_turns(plan)
  with named(ema="sample.ema"):
    run.check_average(plan.sample.ema, training=True)
  template = run.template(mesh)
  memory.check(template, "parameters, averages and optimizer")
  step, slow_loop = _checked_step(run, template, mesh)
  if workdir is None and plan.evaluation.during.every:
    raise UsageError(
      f"evaluation.during.every={plan.evaluation.during.every} writes files: "
      "give a workdir, or set it to 0"
    )
  frozen, begins = {}, Beginning()
  if not start.begun(workdir):
    frozen = start.frozen_parameters(plan, others)
    inputs.check_teacher(given.pairs, plan, frozen.get("teacher"))
    begins = beginning(run, others)
  notes += begins.notes
  for other in (plan.teacher, plan.init):
    if other.workdir:
      notes += latent_notes(other.workdir, plan.data)
  notes += schedule_note(plan, run.learning_rate)
  return _Prepared(
    run=run,
    mesh=mesh,
    template=template,
    step=step,
    slow_loop=slow_loop,
    inputs=given,
    previews=make_previews(run, mesh, real.shape, log),
    first_state=functools.partial(
      start.first_state, run, template, frozen, begins
    ),
    notes=notes,
  )


def _run(
  prepared: _Prepared,
  state: TrainState,
  position: Any,
  workdir: pathlib.Path | None,
  checkpoints: Checkpoints | NoCheckpoints,
  callbacks: Iterable[Any],
  interrupted: Callable[[], bool],
  log: Callable[[str], None],
) -> Trained:
  """Train from a state and a position in the data, None at the beginning."""
  run, mesh, plan = prepared.run, prepared.mesh, prepared.run.plan
  begin, drawn = int(state.step), is_drawn(plan.data)
  _check_turns(plan, begin)
  chunk = steps_per_dispatch(plan, begin)
  if prepared.slow_loop and chunk > 1:
    chunk = _shortest_dispatch(plan, chunk)
    log(f"convolutions on CPUs are slow in a loop: {chunk} step(s) a dispatch")
  log(first_line(plan, state, prepared.inputs, mesh, chunk))
  network = state.frozen.get(BASE, state.params)
  for parameter in sharding.undivided(network, mesh):
    log(f"mesh does not divide {parameter}: replicated along it")
  watch = functools.partial(
    watcher, run, mesh, workdir, interrupted=interrupted, log=log
  )
  if begin >= plan.train.steps:
    place = f"{workdir} is trained to step {begin:,}"
    log(f"nothing to do: {place}{next_command(workdir, drawn)}")
    if workdir is not None and missing_last(run, workdir):
      with contextlib.closing(watch(state)) as on_steps:
        on_steps(state, begin, position)
    return Trained(run=run, state=state, finished=True)
  host = inputs.make_batches(plan, prepared.inputs, steps=chunk, mesh=mesh)
  if position is not None:
    host.set_state(position)
  on_steps = watch(state)
  told, seconds = _callbacks(
    callbacks, workdir, begin, plan.data, prepared.inputs.real, log
  )
  batches = data.Prefetch(host, sharding.batch_sharding(mesh))
  with contextlib.ExitStack() as stack:
    for resource in (on_steps, batches, told):
      stack.enter_context(contextlib.closing(resource))
    told.on_start(
      Start(
        step=begin,
        steps=plan.train.steps,
        batch_size=plan.train.batch_size,
        workdir=workdir,
        config=plan.config.to_dict(),
      )
    )
    processes.together(told.check)
    shown = processes.of_main(told.hears("on_samples"))

    def on_sample(state: TrainState, step: int) -> None:
      samples = prepared.previews(state) if shown else None
      if samples is not None:
        told.on_samples(step, samples)

    state, finished = loop.train(
      state,
      prepared.step,
      batches,
      steps=plan.train.steps,
      batch_size=plan.train.batch_size,
      log_every=plan.train.log_every,
      checkpoint_every=plan.checkpoint.every,
      sample_every=plan.train.sample_every,
      max_skipped=plan.train.max_skipped,
      learning_rate=run.learning_rate,
      checkpoints=checkpoints,
      callbacks=told,
      on_sample=on_sample,
      on_steps=on_steps,
      interrupted=interrupted,
      fault=functools.partial(inputs.fault, plan),
      seconds=seconds,
      log=log,
    )
  sample = plan.sample
  for line in run.remarks(sample.ema, int(state.updates), sample.guidance):
    log(line)
  done = {"finished": finished, "drawn": drawn}
  log(last_line(workdir, int(state.step), told.scalars, **done))
  processes.together(told.check)
  return Trained(run=run, state=state, finished=finished)


def _callbacks(
  given: Iterable[Any],
  workdir: pathlib.Path | None,
  begin: int,
  plan: DataPlan,
  source: data.Source,
  log: Callable[[str], None],
) -> tuple[Callbacks, float]:
  """Return all callbacks, and for how many seconds the run has trained.

  Those of the main process: the others write nothing.
  """
  if not processes.is_main():
    return Callbacks(), 0.0
  own, seconds = [], 0.0
  if workdir is not None:
    table = CsvLog(workdir, start=begin)
    if table.dropped and not begin:
      log(
        f"{workdir} has a log up to step {table.dropped} but no checkpoint: "
        "training starts again, and so does the log"
      )
    seconds = table.seconds
    own += [table, TensorBoardLog(workdir, start=begin)]
    if is_drawn(plan):
      own.append(SamplePictures(workdir, source, log))
  callbacks = [*own, ProgressLines(log), *given]
  return Callbacks(callbacks, on_error=_ask_to_stop), seconds


def _ask_to_stop() -> None:
  """Let all processes save and stop, as a signal from outside does."""
  os.kill(os.getpid(), signal.SIGTERM)


def _check_turns(plan: Plan, begin: int = 0) -> None:
  """Raise UsageError if a dispatch cannot hold a turn of each network."""
  for name, section in plan.companions.items():
    least = _steps_of_turns(section)
    if steps_per_dispatch(plan, begin) >= least:
      continue
    raise UsageError(
      f"train.steps_per_dispatch={plan.train.steps_per_dispatch} with "
      f"{name}.turns='alternate': generator and {name} take turns within a "
      f"dispatch, so its length must be {least} or more and divide "
      "train.log_every, train.sample_every, checkpoint.every"
    )


def _steps_of_turns(section: CompanionPlan) -> int:
  """Return how many steps of a dispatch give each network its turn."""
  return 1 + section.ratio if section.turns == "alternate" else 1


def _shortest_dispatch(plan: Plan, usual: int) -> int:
  """Return the fewest steps of a dispatch in place of the usual number."""
  least = max(map(_steps_of_turns, plan.companions.values()), default=1)
  return next(n for n in range(least, usual + 1) if usual % n == 0)


def steps_per_dispatch(plan: Plan, begin: int) -> int:
  """Return the most steps of a dispatch in a run that begins at a step."""
  train = plan.train
  return loop.steps_per_dispatch(
    train.steps_per_dispatch,
    every=(train.log_every, train.sample_every, plan.checkpoint.every),
    ends=(begin, train.steps),
  )


def _checked_step(
  run: Run, template: TrainState, mesh: jax.sharding.Mesh
) -> tuple[loop.StepFn, bool]:
  """Return the jitted step, traced, so that a wrong option fails at once.

  A dispatch of any length has this trace for its body: JAX keeps it. Beside the
  step stands whether the devices are slower at it within a loop.
  """
  seed, jitted = np.uint32(run.plan.seed), run.jitted_step(template, mesh)
  with option_of("loss"):
    traced = jitted.trace(seed, template, run.batch_shapes(mesh, steps=1))
  slow = mesh.devices.flat[0].platform == "cpu" and convolves(traced.jaxpr)
  return functools.partial(jitted, seed), slow
