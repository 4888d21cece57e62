"""A run: what a config makes, and the workdir that holds its checkpoints."""

import dataclasses
import pathlib
from collections.abc import Callable, Collection
from typing import Self, get_args

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxflow import data
from jaxflow.config import Config, registry
from jaxflow.config.files import load_config
from jaxflow.errors import UsageError
from jaxflow.parallel import sharding
from jaxflow.runs import model as build
from jaxflow.runs.roles import Roles
from jaxflow.training import ema, optimizers
from jaxflow.training.adversary import (
  Opponent,
  Turns,
  count_updates,
  discriminator_loss_fn,
)
from jaxflow.training.checkpoints import Checkpoints
from jaxflow.training.gradients import LossFn
from jaxflow.training.state import TrainState, init_state
from jaxflow.training.step import TrainStep, make_loss_fn, make_train_step
from jaxflow.types import Array, Batch, PyTree


@dataclasses.dataclass(frozen=True)
class Run:
  """Everything of a run but its arrays.

  Attributes:
    model: Method, path and network.
    roles: The other networks.
    learning_rate: The schedule: update's number -> rate.
    optimizer: The optimizer with that schedule.
    emas: Laws of the averages by name.
    opponent: How the discriminator learns, or None.
  """

  model: build.Model
  roles: Roles
  learning_rate: optax.Schedule
  optimizer: optax.GradientTransformation
  emas: dict[str, ema.Law]
  opponent: Opponent | None

  @classmethod
  def of(cls, config: Config) -> Self:
    """Build a run from a resolved config; raise UsageError where it is wrong.

    Resolved means that `data.shape`, `data.num_classes` and, where there are
    other runs, `teacher.config` and `features.config` are set.
    """
    model = build.make_model(config)
    roles = Roles.of(model)
    steps, opponent = config.train.steps, None
    if roles.discriminator is not None:
      start = round(config.discriminator.start * steps)
      steps, others = count_updates(steps, start, config.discriminator.turns)
      opponent = _opponent(model, roles, start=start, steps=others)
    schedule, optimizer = optimizers.from_section(
      config.optimizer.to_dict(), steps=steps, field="optimizer"
    )
    return cls(
      model=model,
      roles=roles,
      learning_rate=schedule,
      optimizer=optimizer,
      emas={
        name: model.component("ema", law, f"ema.{name}")
        for name, law in config.ema.items()
      },
      opponent=opponent,
    )

  def loss_fn(self) -> LossFn:
    """Return the method's loss, bound to the networks."""
    config, options = self.model.config, self.model.loss_options()
    return make_loss_fn(
      self.model.method,
      self.model.network.apply,
      options,
      frozen_fns=self.roles.frozen_fns(
        config.get("teacher", {}), self.model.path
      ),
      learned_fns=self.roles.learned_fns(),
      discriminator_fn=self.opponent and self.roles.discriminator_fn,
      last_layer=options.pop("last_layer", ""),
      steps=config.train.steps,
    )

  def train_step(self) -> TrainStep:
    """Return the training step."""
    return make_train_step(
      self.loss_fn(),
      self.optimizer,
      self.emas,
      seed=self.model.config.seed,
      opponent=self.opponent,
    )

  def init(
    self, params: PyTree, frozen: dict[str, PyTree], key: Array
  ) -> TrainState:
    """Return the first state.

    Args:
      params: The network's parameters.
      frozen: The parameters that never change, by role.
      key: Random key of the discriminator and of the loss's parameters.
    """
    adversary = None
    if self.roles.discriminator is not None and self.opponent is not None:
      adversary = self.opponent.init(self.roles.discriminator.init(key))
    return init_state(
      params,
      self.optimizer,
      self.emas,
      loss_params=self.roles.loss_params(key),
      adversary=adversary,
      frozen=frozen,
    )

  def template(self, mesh: Mesh) -> TrainState:
    """Return the shapes of the state, sharded over a mesh."""
    key = jax.random.key(0)
    params = jax.eval_shape(self.model.network.init, key)
    state = jax.eval_shape(self.init, params, self.roles.frozen_shapes(), key)
    return jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      state,
      sharding.parameter_shardings(state, mesh),
    )

  def batch_shapes(self, mesh: Mesh, *, steps: int) -> Batch:
    """Return the shapes of a dispatch's batch, `[steps, micro-batches, rows]`.

    Args:
      mesh: The devices.
      steps: Steps a dispatch.
    """
    options, model = self.model.config.train, self.model
    rows = options.batch_size // options.accumulate
    leading = (steps, options.accumulate, rows)
    where = sharding.batch_sharding(mesh)

    def shape(dims, dtype):
      return jax.ShapeDtypeStruct((*leading, *dims), dtype, sharding=where)

    batch = {"data": shape(model.shape, jnp.float32)}
    if model.num_classes:
      batch["cond"] = shape((), jnp.int32)
    if "pairs" in model.method.needs:
      batch["noise"] = batch["data"]
    return batch

  def jitted_step(
    self, template: TrainState, mesh: Mesh
  ) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """Return the jitted training step over a mesh; it donates the state.

    Args:
      template: The shapes of the state, as `template` gives them.
      mesh: The devices.
    """
    shardings = jax.tree.map(lambda x: x.sharding, template)
    return jax.jit(
      sharding.over(mesh, self.train_step()),
      donate_argnums=0,
      in_shardings=(shardings, sharding.batch_sharding(mesh)),
      out_shardings=(shardings, sharding.replicated(mesh)),
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


def _opponent(
  model: build.Model, roles: Roles, *, start: int, steps: int
) -> Opponent:
  """Return how the discriminator learns in so many updates."""
  section = model.config.discriminator
  registry.choose(
    "discriminator.turns", section.turns, dict.fromkeys(get_args(Turns))
  )
  if not steps:
    raise UsageError(
      f"discriminator.start={section.start} leaves the discriminator no step "
      f"of train.steps={model.config.train.steps}: start earlier"
    )
  _, optimizer = optimizers.from_section(
    section.optimizer.to_dict(), steps=steps, field="discriminator.optimizer"
  )
  options = model.loss_options()

  def generator_fn(params):
    return model.flow_map()(model.prediction_fn(params, 1.0, "guidance"))

  loss_fn = discriminator_loss_fn(
    roles.discriminator_fn,
    generator_fn,
    path=model.path,
    sample_times=model.component(
      "starts",
      section.times,
      "discriminator.times",
      sample_times=options.get("sample_times"),
    ),
    criterion=options["criterion"],
  )
  return Opponent(
    loss_fn=loss_fn, optimizer=optimizer, start=start, turns=section.turns
  )


def load(
  workdir: pathlib.Path,
  *,
  field: str,
  mesh: Mesh,
  config: Config | None = None,
  step: int | str | None = None,
  ema: str | None = None,
  roles: Collection[str] = (),
) -> tuple[Run, TrainState]:
  """Restore a run from its workdir.

  Args:
    workdir: A folder that `jaxflow train` has made.
    field: The flag or config field that names it, for messages.
    mesh: The devices on which to put it.
    config: Its config, where something of it has changed; default: as saved.
    step: The checkpoint; default: the latest; "best": the one that was best
      while training.
    ema: If given, only this average is read, or the parameters for "online";
      the state holds nothing else but its step.
    roles: Frozen networks that are read beside that average, "teacher" for
      one; a run that has none of that role passes over it.

  Returns:
    The run and its state.

  Raises:
    UsageError: If the folder holds no run or no checkpoint.
  """
  run = Run.of(config or load_config(workdir, field=field))
  template = run.template(mesh)
  if ema is not None:
    template = _only(template, ema, roles)
  folder = workdir / ("best" if step == "best" else "checkpoints")
  if step == "best" and not folder.is_dir():
    raise UsageError(
      f"{field.replace('workdir', 'step')}=best: {str(workdir)!r} keeps no "
      "best checkpoint; train with evaluation.during.best"
    )
  number = step if isinstance(step, int) else None
  restored = None
  if folder.is_dir():
    checkpoints = Checkpoints(folder, read_only=True)
    try:
      restored = checkpoints.restore(
        template,
        number,
        field=field.replace("workdir", "step"),
        partial=ema is not None,
      )
    finally:
      checkpoints.close()
  if restored is None:
    raise UsageError(
      f"{field}={str(workdir)!r} holds no checkpoint yet: train it first"
    )
  return run, restored[0]


def _only(state: TrainState, name: str, roles: Collection[str]) -> TrainState:
  """Return a state without what sampling from an average does not need.

  Where there is no such average, `Run.select` will say so.
  """
  if name != "online" and name not in state.ema:
    return state
  return dataclasses.replace(
    state,
    params=state.params if name == "online" else {},
    opt_state=(),
    ema={k: v for k, v in state.ema.items() if k == name},
    loss_params={},
    adversary=None,
    frozen={k: v for k, v in state.frozen.items() if k in roles},
  )


def load_data(
  config: Config, split: str, *, labels: bool = False
) -> data.Source:
  """Open a split of the data set that a config names.

  Args:
    config: A config.
    split: "train" or "test".
    labels: Whether to keep labels that the run itself does not see.
  """
  fields = config.data
  source = data.load(
    fields.name,
    split,
    raw_dir=fields.raw_dir,
    data_dir=fields.data_dir,
    size=fields.size,
    ram_gib=fields.ram_gib,
    threads=fields.threads,
    download=fields.download,
  )
  if fields.conditional or labels:
    return source
  return data.without_labels(source)
