"""A run: what a config makes, and the workdir that holds its checkpoints."""

import dataclasses
import functools
import pathlib
from typing import Self

import jax
import optax
from jax.sharding import Mesh

from jaxflow import build, data
from jaxflow.config import Config, load_config
from jaxflow.errors import UsageError
from jaxflow.methods import METHODS
from jaxflow.training import ema, optimizers, sharding
from jaxflow.training.checkpoints import Checkpoints
from jaxflow.training.state import TrainState, init_state
from jaxflow.training.step import LossFn, make_loss_fn
from jaxflow.types import PyTree


@dataclasses.dataclass(frozen=True)
class Run:
  """Everything of a run but its arrays.

  Attributes:
    model: Method, path and network.
    teacher: The teacher's model, or None.
    learning_rate: The schedule: update's number -> rate.
    optimizer: The optimizer with that schedule.
    emas: Laws of the averages by name.
  """

  model: build.Model
  teacher: build.Model | None
  learning_rate: optax.Schedule
  optimizer: optax.GradientTransformation
  emas: dict[str, ema.Law]

  @classmethod
  def of(cls, config: Config) -> Self:
    """Build a run from a resolved config; raise UsageError where it is wrong.

    Resolved means that `data.shape`, `data.num_classes` and, where there is a
    teacher, `teacher.config` are set.
    """
    model = build.make_model(config)
    options = config.optimizer.to_dict()
    schedule = optimizers.make_schedule(
      options.pop("schedule"),
      peak=options.pop("learning_rate"),
      steps=config.train.steps,
      warmup_steps=options.pop("warmup_steps"),
    )
    return cls(
      model=model,
      teacher=_teacher(model),
      learning_rate=schedule,
      optimizer=optimizers.make_optimizer(
        options.pop("name"), schedule, **options
      ),
      emas={
        name: model.component("ema", law, f"ema.{name}")
        for name, law in config.ema.items()
      },
    )

  def loss_fn(self) -> LossFn:
    """Return the method's loss, bound to the networks."""
    teacher_fn = None
    if self.teacher is not None:
      teacher_fn = functools.partial(
        self.teacher.velocity_fn,
        scale=self.model.config.teacher.guidance,
        field="teacher.guidance",
      )
    return make_loss_fn(
      self.model.method,
      self.model.network.apply,
      self.model.loss_options(),
      teacher_fn=teacher_fn,
      steps=self.model.config.train.steps,
    )

  def init(self, params: PyTree, teacher: PyTree) -> TrainState:
    """Return the first state from parameters."""
    return init_state(params, self.optimizer, self.emas, teacher=teacher)

  def template(self, mesh: Mesh) -> TrainState:
    """Return the shapes of the state, sharded over a mesh."""
    key = jax.random.key(0)
    params = jax.eval_shape(self.model.network.init, key)
    teacher = None
    if self.teacher is not None:
      teacher = jax.eval_shape(self.teacher.network.init, key)
    state = jax.eval_shape(self.init, params, teacher)
    return jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      state,
      sharding.parameter_shardings(state, mesh),
    )

  def select(self, state: TrainState, name: str, field: str) -> PyTree:
    """Return the average of a name, or the parameters for "online"."""
    if name == "online":
      return state.params
    if name not in state.ema:
      raise UsageError(
        f"{field}={name!r} is no average of this run: choose one of "
        f"{', '.join(['online', *state.ema])}"
      )
    return state.ema[name]


def _teacher(model: build.Model) -> build.Model | None:
  config = model.config
  saved = config.get("teacher", {}).get("config", None)
  if saved is None:
    if "teacher" in model.method.needs:
      raise UsageError(
        f"teacher.workdir='' but method={config.method!r} needs a teacher: "
        f"give the folder of a trained run of {_teachers()}, "
        "--config.teacher.workdir=FOLDER"
      )
    return None
  teacher = build.make_model(saved)
  if not teacher.method.teaches:
    raise UsageError(
      f"teacher.workdir={config.teacher.workdir!r} is a run of "
      f"{saved.method!r}, whose network is no velocity: give one of "
      f"{_teachers()}"
    )
  for field, mine, its in (
    ("data.shape", model.shape, teacher.shape),
    ("data.num_classes", model.num_classes, teacher.num_classes),
    ("path", model.path, teacher.path),
  ):
    if mine != its:
      raise UsageError(
        f"teacher.workdir={config.teacher.workdir!r}: its {field} is {its}, "
        f"this run's is {mine}; they must agree"
      )
  return teacher


def _teachers() -> str:
  return ", ".join(name for name, row in METHODS.items() if row.teaches)


def load(
  workdir: pathlib.Path, *, field: str, mesh: Mesh, step: int | None = None
) -> tuple[Run, TrainState]:
  """Restore a run from its workdir.

  Args:
    workdir: A folder that `jaxflow train` has made.
    field: The flag or config field that names it, for messages.
    mesh: The devices on which to put it.
    step: The checkpoint; default: the latest.

  Returns:
    The run and its state.

  Raises:
    UsageError: If the folder holds no run or no checkpoint.
  """
  run = Run.of(load_config(workdir, field=field))
  folder = workdir / "checkpoints"
  restored = None
  if folder.is_dir():
    checkpoints = Checkpoints(folder, read_only=True)
    try:
      restored = checkpoints.restore(run.template(mesh), step)
    finally:
      checkpoints.close()
  if restored is None:
    raise UsageError(
      f"{field}={str(workdir)!r} holds no checkpoint yet: train it first"
    )
  return run, restored[0]


def load_data(config: Config, split: str) -> data.Dataset:
  """Load a split of the data set that a config names."""
  fields = config.data
  dataset = data.load(
    fields.name, split, raw_dir=fields.raw_dir, data_dir=fields.data_dir
  )
  if fields.conditional:
    return dataset
  return data.from_arrays(dataset.data, name=fields.name, split=split)
