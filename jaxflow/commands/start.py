"""Where a run starts: its resolved config, its teacher, its first state."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

import jax

from jaxflow import data
from jaxflow.config import Config, check_same_run, load_config
from jaxflow.config import resolve as resolve_config
from jaxflow.errors import UsageError
from jaxflow.runs import Run, load
from jaxflow.training.state import TrainState
from jaxflow.types import PyTree


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
  """Hold a workdir, so that no second process trains in it.

  Raises:
    UsageError: If another process holds it.
  """
  handle = os.open(workdir, os.O_RDONLY)
  try:
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    yield
  except BlockingIOError as error:
    raise UsageError(
      f"--workdir={workdir} is being trained by another process: wait for its "
      "end, or give another folder"
    ) from error
  finally:
    os.close(handle)


def resolve(
  config: Config,
  dataset: data.Dataset,
  workdir: pathlib.Path,
  mesh: jax.sharding.Mesh,
) -> tuple[Config, tuple[Run, TrainState] | None]:
  """Fill in what data and teacher decide; check against an earlier run."""
  saved = _earlier_config(workdir)
  teacher, teacher_config = None, None
  if "teacher" in config:
    # A folder that Orbax is still writing has a longer name.
    if saved and any(p.name.isdigit() for p in workdir.glob("checkpoints/*")):
      teacher_config = saved.get("teacher", {}).get("config", None)
    elif config.teacher.workdir:
      folder = pathlib.Path(config.teacher.workdir)
      teacher = load(folder, field="teacher.workdir", mesh=mesh)
      teacher_config = teacher[0].model.config
  config = resolve_config(
    config,
    shape=dataset.data.shape[1:],
    num_classes=dataset.num_classes,
    teacher=teacher_config,
  )
  if saved:
    check_same_run(saved, config, str(workdir))
  return config, teacher


def _earlier_config(workdir: pathlib.Path) -> Config | None:
  """Return the config of the run that a workdir holds, or None."""
  try:
    if (workdir / "config.json").exists():
      return load_config(workdir, field="--workdir")
    foreign = workdir.is_dir() and any(workdir.iterdir())
  except OSError as error:
    raise UsageError(
      f"--workdir={workdir} cannot be read ({error.strerror}): give another "
      "folder, or make it readable"
    ) from error
  if foreign:
    raise UsageError(
      f"--workdir={workdir} is not empty and holds no config.json: give a new "
      "folder"
    )
  return None


def teacher_parameters(
  run: Run, template: TrainState, teacher: tuple[Run, TrainState] | None
) -> PyTree:
  """Return the average that teaches, or None; check that it fits the student.

  Args:
    run: The student's run.
    template: The shapes of its state.
    teacher: The teacher's run and state, or None.

  Raises:
    UsageError: If there is no such average, or the student cannot start there.
  """
  if teacher is None:
    return None
  options = run.model.config.teacher
  params = teacher[0].select(teacher[1], options.ema, "teacher.ema")
  if options.init_student:
    _check_same_network(run, template.params, params)
  return params


def first_state(
  run: Run, template: TrainState, teacher_params: PyTree
) -> TrainState:
  """Initialise, from the teacher where the config says so."""
  config = run.model.config
  shardings = jax.tree.map(lambda x: x.sharding, template)
  if teacher_params is not None and config.teacher.init_student:
    init = jax.jit(run.init, out_shardings=shardings)
    return init(teacher_params, teacher_params)

  def fresh(key, teacher_params):
    return run.init(run.model.network.init(key), teacher_params)

  init = jax.jit(fresh, out_shardings=shardings)
  return init(jax.random.key(config.seed), teacher_params)


def _check_same_network(run: Run, student: PyTree, teacher: PyTree) -> None:
  shapes = [
    {
      jax.tree_util.keystr(path): leaf.shape
      for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }
    for tree in (student, teacher)
  ]
  if shapes[0] == shapes[1]:
    return
  mine, its = run.model.config.model, run.model.config.teacher.config.model
  differing = [
    f"model.{k} is {its.get(k)} there, {mine.get(k)} here"
    for k in sorted(set(mine) | set(its))
    if mine.get(k) != its.get(k)
  ]
  raise UsageError(
    f"teacher.workdir={run.model.config.teacher.workdir!r} has another "
    f"network ({'; '.join(differing)}): make them equal, or set "
    "teacher.init_student=False"
  )
