"""Where a run starts: its resolved config, its teacher, its first state."""

import pathlib

import jax

from jaxflow import data
from jaxflow.config import Config, check_same_run, load_config
from jaxflow.config import resolve as resolve_config
from jaxflow.errors import UsageError
from jaxflow.runs import Run, load
from jaxflow.training.state import TrainState
from jaxflow.types import PyTree


def resolve(
  config: Config,
  dataset: data.Dataset,
  workdir: pathlib.Path,
  mesh: jax.sharding.Mesh,
) -> tuple[Config, tuple[Run, TrainState] | None]:
  """Fill in what data and teacher decide; check against an earlier run."""
  saved = None
  if (workdir / "config.json").exists():
    saved = load_config(workdir, field="--workdir")
  elif workdir.is_dir() and any(workdir.iterdir()):
    raise UsageError(
      f"--workdir={workdir} is not empty and holds no config.json: give a new "
      "folder"
    )
  teacher, teacher_config = None, None
  trained = saved is not None and any(workdir.glob("checkpoints/[0-9]*"))
  if config.get("teacher", {}).get("workdir"):
    if trained:
      teacher_config = saved.teacher.config
    else:
      folder = pathlib.Path(config.teacher.workdir)
      teacher = load(folder, field="teacher.workdir", mesh=mesh)
      teacher_config = teacher[0].model.config
  config = resolve_config(
    config,
    shape=dataset.data.shape[1:],
    num_classes=dataset.num_classes,
    teacher=teacher_config,
  )
  if saved is not None:
    check_same_run(saved, config, str(workdir))
  return config, teacher


def first_state(
  run: Run,
  template: TrainState,
  teacher: tuple[Run, TrainState] | None,
) -> TrainState:
  """Initialise, from the teacher where the config says so."""
  config = run.model.config
  shardings = jax.tree.map(lambda x: x.sharding, template)
  teacher_params = None
  if teacher is not None:
    teacher_params = teacher[0].select(
      teacher[1], config.teacher.ema, "teacher.ema"
    )
  if teacher_params is not None and config.teacher.init_student:
    _check_same_network(run, template.params, teacher_params)
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
  mine, its = run.model.config.model, run.teacher.config.model
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
