"""Train a config in a workdir."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxflow import data
from jaxflow.commands.sample import save_samples
from jaxflow.config import Config
from jaxflow.config.files import save_config
from jaxflow.config.limits import check_limits
from jaxflow.errors import UsageError, named
from jaxflow.evaluation.during_training import missing_last, watcher
from jaxflow.evaluation.evaluator import check_fields
from jaxflow.parallel import folders, processes, sharding
from jaxflow.runs import decoding, inputs, start
from jaxflow.runs.drawing import class_labels, drawer
from jaxflow.runs.initial_weights import difference, initial_parameters
from jaxflow.runs.run import Run, load_data
from jaxflow.training import loop
from jaxflow.training.checkpoints import Checkpoints
from jaxflow.training.logs import Log, NoLog
from jaxflow.training.state import TrainState

GRID_SIZE = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Plan:
  """A run that is checked, before anything of it is written.

  Attributes:
    run: The run, of its resolved config.
    mesh: The devices.
    template: The shapes of its state.
    step: Its jitted training step.
    given: What it trains on.
    on_sample: Writes a picture.
    notes: Lines to print.
  """

  run: Run
  mesh: jax.sharding.Mesh
  template: TrainState
  step: loop.StepFn
  given: inputs.Inputs
  on_sample: Callable[[TrainState, int], None]
  notes: list[str]


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
  with processes.interruption() as interrupted, contextlib.ExitStack() as stack:
    plan, first_state = _prepare(config, workdir, say)

    def begin_writing():
      folders.make_workdir(workdir)
      stack.enter_context(folders.locked(workdir))
      save_config(plan.run.model.config, workdir / "config.json")

    with named(workdir="--workdir", folder="--workdir"):
      processes.once(begin_writing)
    for note in plan.notes:
      say(note)
    section = plan.run.model.config.checkpoint
    checkpoints = Checkpoints(
      workdir / "checkpoints", keep=section.keep, keep_every=section.keep_every
    )
    stack.callback(checkpoints.close)
    restored = checkpoints.restore(plan.template)
    state, position = restored or (first_state(), None)
    # It holds the networks of others, which take up memory.
    del first_state, restored
    return _run(plan, state, position, workdir, checkpoints, interrupted, say)


def _prepare(
  config: Config, workdir: pathlib.Path, say: Callable[[str], None]
) -> tuple[_Plan, Callable[[], TrainState]]:
  """Read data and other runs, and check all that can be checked.

  Returns:
    The plan, and what makes the state of a run that begins.
  """
  check_limits(config)
  check_fields(config)
  mesh = sharding.make_mesh(**config.mesh)
  processes.check_same(str(config.to_dict()), "the config")
  with named(workdir="--workdir"):
    folders.check_shared(workdir)
  given = processes.together(
    lambda: inputs.read_inputs(config, load_data(config, "train"))
  )
  real = given.real
  processes.check_same(
    f"{real.name} {real.split} {len(real)} {real.shape}", "the data set"
  )
  config, others = start.resolve(config, given, workdir, mesh)
  run = Run.of(config)
  inputs.check_mesh(config, mesh)
  inputs.check_scale(run.model)
  _check_turns(config)
  template = run.template(mesh)
  run.select(template, config.sample.ema, "sample.ema")
  step = _checked_step(run, template, mesh)
  on_sample = _sample_writer(run, mesh, workdir, real, say)
  frozen, init_params = {}, None
  if not start.begun(workdir):
    frozen = start.frozen_parameters(run, template, others)
    inputs.check_teacher(given.pairs, config, frozen.get("teacher"))
    init_params = initial_parameters(run, template, others.get("init"))
  warm = _warm_start(run, others)
  plan = _Plan(
    run=run,
    mesh=mesh,
    template=template,
    step=step,
    given=given,
    on_sample=on_sample,
    notes=[warm] if warm else [],
  )
  first = functools.partial(
    start.first_state, run, template, frozen, init_params
  )
  return plan, first


def _run(
  plan: _Plan,
  state: TrainState,
  position: Any,
  workdir: pathlib.Path,
  checkpoints: Checkpoints,
  interrupted: Callable[[], bool],
  say: Callable[[str], None],
) -> bool:
  """Train from a state and a position in the data, None at the beginning."""
  run, mesh, config = plan.run, plan.mesh, plan.run.model.config
  options = config.train
  begin = int(state.step)
  _check_turns(config, begin)
  chunk = steps_per_dispatch(config, begin)
  count = sum(x.size for x in jax.tree.leaves(state.params))
  say(
    f"{config.method} on {config.data.name}: {count:,} parameters, "
    f"{plan.given}, {_machine(mesh)}, "
    f"{chunk} steps per dispatch, {'resumed at' if begin else 'from'} step "
    f"{begin}"
  )
  for parameter in sharding.undivided(state.params, mesh):
    say(f"mesh does not divide {parameter}: replicated along it")
  if begin >= options.steps:
    say(f"nothing to do: {workdir} is trained to step {begin}")
    if missing_last(run, workdir):
      on_steps = watcher(run, mesh, workdir, state, interrupted, say)
      with contextlib.closing(on_steps):
        on_steps(state, begin, position)
    return True
  host = inputs.make_batches(config, plan.given, steps=chunk, mesh=mesh)
  if position is not None:
    host.set_state(position)
  on_steps = watcher(run, mesh, workdir, state, interrupted, say)
  log = Log(workdir, start=begin) if processes.is_main() else NoLog()
  batches = data.Prefetch(host, sharding.batch_sharding(mesh))
  closing = map(contextlib.closing, (on_steps, log, batches))
  with contextlib.ExitStack() as stack:
    for resource in closing:
      stack.enter_context(resource)
    state, finished = loop.train(
      state,
      plan.step,
      batches,
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
      on_sample=plan.on_sample,
      on_steps=on_steps,
      interrupted=interrupted,
      print_line=say,
    )
  if not finished:
    say(
      f"interrupted: saved step {int(state.step)} in {workdir}; the same "
      "command goes on from there"
    )
  return finished


def _machine(mesh: jax.sharding.Mesh) -> str:
  """Say on what a run trains: `8 device(s)`, and how they are arranged."""
  text = f"{mesh.size} device(s)"
  if processes.count() > 1:
    text += f" of {processes.count()} processes"
  if mesh.size > mesh.shape["data"]:
    text += f" ({', '.join(f'{k} {v}' for k, v in mesh.shape.items())})"
  return text


def _warm_start(run: Run, others: start.Others) -> str | None:
  """Return a line if the first weights come from another function."""
  if "init" in others:
    return difference(run, others["init"][0], "init.workdir")
  if "teacher" in others and run.model.config.teacher.init_student:
    return difference(run, others["teacher"][0], "teacher.workdir")
  return None


def _check_turns(config: Config, begin: int = 0) -> None:
  """Raise UsageError if a dispatch cannot hold a turn of either player."""
  section = config.get("discriminator", {})
  if section.get("network", {}).get("name", "none") == "none":
    return
  if section["turns"] == "alternate" and steps_per_dispatch(config, begin) < 2:
    raise UsageError(
      f"train.steps_per_dispatch={config.train.steps_per_dispatch} with "
      "discriminator.turns='alternate': generator and discriminator take "
      "turns within a dispatch, so its length must be 2 or more and divide "
      "train.steps, train.log_every, train.sample_every, checkpoint.every"
    )


def steps_per_dispatch(config: Config, begin: int) -> int:
  """Return the number of steps a dispatch of a run that begins at a step."""
  return loop.steps_per_dispatch(
    config.train.steps_per_dispatch,
    begin,
    config.train.steps,
    config.train.log_every,
    config.train.sample_every,
    config.checkpoint.every,
  )


def _checked_step(
  run: Run, template: TrainState, mesh: jax.sharding.Mesh
) -> loop.StepFn:
  """Return the jitted step, traced, so that a wrong option fails at once.

  A dispatch of any length has this trace for its body: JAX keeps it.
  """
  step = run.jitted_step(template, mesh)
  try:
    jax.eval_shape(step, template, run.batch_shapes(mesh, steps=1))
  except UsageError:
    raise
  except ValueError as error:
    raise UsageError(f"loss: {error}") from error
  return step


def _sample_writer(
  run: Run,
  mesh: jax.sharding.Mesh,
  workdir: pathlib.Path,
  source: data.Source,
  say: Callable[[str], None],
) -> Callable[[TrainState, int], None]:
  """Return what writes a picture of samples from fixed noise."""
  points = len(source.shape) == 1
  num = 2000 if points else GRID_SIZE
  labels = class_labels(run.model.num_classes, num, None)
  first = np.arange(min(num, len(source)))
  reference = source.take(first)["data"] if points else None
  options = run.model.config.sample
  draw = drawer(run, options.nfe, "sample.nfe", mesh)
  picture = decoding.make_picture(run.model.config)

  def write(state, step):
    samples = draw(state, jax.random.key(0), num, labels)
    if not processes.is_main():
      return
    if not np.isfinite(samples).all():
      say(f"step {step}: samples are not finite, no picture of them is written")
      return
    path = workdir / "samples" / f"{step:08d}.png"
    save_samples(picture(samples), path, reference=reference)

  return write
