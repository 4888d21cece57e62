"""A run: its plan, and all that follows from it but the arrays."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxflow import conditions, options
from jaxflow.errors import UsageError, inside, named
from jaxflow.parallel import sharding
from jaxflow.plans import Model, Plan
from jaxflow.training import optimizers, posthoc
from jaxflow.training.companions import (
  Learner,
  Rhythm,
  companion_loss_fn,
  count_updates,
)
from jaxflow.training.ema import Power, share_of_start
from jaxflow.training.gradients import LossFn
from jaxflow.training.layers import matching
from jaxflow.training.state import BASE, TrainState, init_state
from jaxflow.training.step import TrainStep, make_loss_fn, make_train_step
from jaxflow.types import Array, Batch, PyTree

# Share of the first weights beyond which an average is no use.
_LARGEST_SHARE = 0.05
# The number of the random stream of an adapter's first parameters.
_ADAPTER = 3


@dataclasses.dataclass(frozen=True)
class Run:
  """Everything of a run but its arrays; the optimizer is made when needed.

  Attributes:
    plan: Its plan.
  """

  plan: Plan

  @property
  def model(self) -> Model:
    """Method, path and network."""
    return self.plan.model

  def make_sampler(self, nfe: int) -> Callable[..., Array]:
    """Return the jitted sampler `(params, noise, key, cond) -> samples`."""
    return self.model.make_sampler(self.plan.sample, nfe)

  @functools.cached_property
  def streams(self) -> dict[tuple[int, jax.sharding.Mesh], Any]:
    """The streams of samples that `drawing.streamer` has made."""
    return {}

  @functools.cached_property
  def _rhythms(self) -> dict[str, Rhythm]:
    """When each companion learns."""
    steps = self.plan.train.schedule_steps
    return {
      name: Rhythm(
        start=round(own.start * steps), turns=own.turns, ratio=own.ratio
      )
      for name, own in self.plan.companions.items()
    }

  @functools.cached_property
  def _updates(self) -> tuple[int, dict[str, int]]:
    """The updates of the student and of each companion."""
    return count_updates(self.plan.train.schedule_steps, self._rhythms)

  @functools.cached_property
  def _optimizer(self) -> tuple[optax.Schedule, optax.GradientTransformation]:
    learns = self._learns
    with inside("optimizer"):
      return optimizers.make_optimizer(
        self.plan.optimizer, steps=self._updates[0], learns=learns
      )

  @functools.cached_property
  def _learns(self) -> PyTree:
    """Which arrays the optimizer moves, as a tree or a prefix of one."""
    only, key = self.plan.train.only, jax.random.key(0)
    if not only:
      return True
    with named(pattern="train.only"):
      found = matching(self.learned, only)
    # The parameters of the loss learn too.
    own = jax.eval_shape(self.plan.roles.loss_params, key)
    return (found, True) if own else found

  @functools.cached_property
  def learned(self) -> PyTree:
    """The shapes of what learns: the network's parameters, or an adapter's."""
    key = jax.random.key(0)
    params = jax.eval_shape(self.model.network.init, key)
    if self.plan.adapter is None:
      return params
    with inside("adapter"):
      return jax.eval_shape(self.plan.adapter.init, key, params)

  @property
  def learning_rate(self) -> optax.Schedule:
    """The schedule: number of the update -> rate."""
    return self._optimizer[0]

  @property
  def optimizer(self) -> optax.GradientTransformation:
    """The optimizer with that schedule."""
    return self._optimizer[1]

  @functools.cached_property
  def learners(self) -> dict[str, Learner]:
    """How each companion learns."""
    return {name: self._learner(name) for name in self.plan.companions}

  def _learner(self, name: str) -> Learner:
    plan, model, section = self.plan, self.model, self.plan.companions[name]
    steps = self._updates[1][name]
    if not steps:
      raise UsageError(
        f"{name}.start={section.start} leaves the {name} no step of "
        f"train.schedule_steps={plan.train.schedule_steps}: start earlier"
      )
    with inside(f"{name}.optimizer"):
      _, optimizer = optimizers.make_optimizer(section.optimizer, steps=steps)
    loss_fn = companion_loss_fn(
      section.loss,
      plan.roles.companions[name].arguments,
      lambda state: model.flow_map(model.network_fn(self._whole(state))),
      **section.options,
    )
    return Learner(
      loss_fn=loss_fn, optimizer=optimizer, rhythm=self._rhythms[name]
    )

  def loss_fn(self) -> LossFn:
    """Return the method's loss, bound to the networks."""
    model, roles = self.model, self.plan.roles
    layer = options.marked(model.method.loss, options.Layer)
    loss_fn = make_loss_fn(
      model.method,
      model.network.apply,
      {k: v for k, v in model.loss_options.items() if k not in layer},
      frozen_fns=roles.frozen_fns(model.path),
      learned_fns=roles.learned_fns(),
      companion_fns={k: x.arguments for k, x in roles.companions.items()},
      last_layer=self.plan.last_layer,
      only=self.plan.train.only,
      steps=self.plan.train.schedule_steps,
      merge=self.plan.adapter and self.plan.adapter.merge,
    )
    return named(last_layer="loss.last_layer")(loss_fn)

  def train_step(self, *, divided: bool = True) -> TrainStep:
    """Return the training step.

    Args:
      divided: Whether an axis of the mesh may split a parameter.
    """
    each = optimizers.treats_numbers_alone(self.plan.optimizer)
    return make_train_step(
      self.loss_fn(),
      self.optimizer,
      self.plan.emas,
      seed=self.plan.seed,
      learners=self.learners,
      project=self.projection,
      packs=each and not divided and not self.plan.train.only,
      impl=self.plan.train.prng,
    )

  @property
  def projection(self) -> Callable[[PyTree], PyTree] | None:
    """The network's projection, of what learns; None without."""
    project, only = self.model.network.project, self.plan.train.only
    # Behind an adapter the network's own parameters stay.
    if project is None or self.plan.adapter is not None:
      return None
    if not only:
      return project

    def of_learning(params: PyTree) -> PyTree:
      return jax.tree.map(
        lambda learns, new, old: new if learns else old,
        *(matching(params, only), project(params), params),
      )

    return of_learning

  def init(
    self, params: PyTree, frozen: dict[str, PyTree], key: Array
  ) -> TrainState:
    """Return the first state of a network's parameters."""
    roles = self.plan.roles
    if self.plan.adapter is not None:
      frozen = {**frozen, BASE: params}
      key_of_adapter = jax.random.fold_in(key, _ADAPTER)
      with inside("adapter"):
        params = self.plan.adapter.init(key_of_adapter, params)
    return init_state(
      params,
      self.optimizer,
      self.plan.emas,
      loss_params=roles.loss_params(key),
      memory=self._memories(),
      companions={
        name: learner.init(roles.companions[name].init(key, frozen))
        for name, learner in self.learners.items()
      },
      frozen=frozen,
    )

  def _memories(self) -> dict[str, PyTree]:
    """Return the first values of the loss's memories, by argument."""
    model = self.model
    given = {
      **model.loss_options,
      "data_shape": model.shape,
      "num_classes": model.num_classes,
      "channels": self.plan.roles.channels,
    }
    return options.first_memories(model.method.loss, given)

  def template(self, mesh: Mesh) -> TrainState:
    """Return the shapes of the state, sharded over a mesh."""
    key = jax.random.key(0)
    params = jax.eval_shape(self.model.network.init, key)
    frozen = self.plan.roles.frozen_shapes()
    return _sharded(jax.eval_shape(self.init, params, frozen, key), mesh)

  def sampling_template(
    self, mesh: Mesh, ema: str, roles: Collection[str] = ()
  ) -> TrainState:
    """Return the shapes of one average and its step; no optimizer is built."""
    self.check_average(ema)
    frozen = self.plan.roles.frozen_shapes()
    params, roles = self.learned, {*roles}
    if self.plan.adapter is not None:
      network = self.model.network
      frozen[BASE] = jax.eval_shape(network.init, jax.random.key(0))
      roles.add(BASE)
    none: Any = jax.ShapeDtypeStruct((), jnp.int32)
    online = ema == "online"
    state = TrainState(
      step=none,
      updates=none,
      params=params if online else {},
      opt_state=(),
      ema={} if online else {ema: params},
      loss_params={},
      memory={},
      companions={},
      frozen={k: v for k, v in frozen.items() if k in roles},
      skipped=none,
      skipped_in_row=none,
    )
    return _sharded(state, mesh)

  def batch_shapes(self, mesh: Mesh, *, steps: int) -> Batch:
    """Return a dispatch's shapes, `[steps, micro-batches, rows, ...]`."""
    options, model = self.plan.train, self.model
    rows = options.batch_size // options.accumulate
    leading = (steps, options.accumulate, rows)
    where = sharding.batch_sharding(mesh)

    def shape(dims, dtype):
      return jax.ShapeDtypeStruct((*leading, *dims), dtype, sharding=where)

    batch: dict[str, Any] = {"data": shape(model.shape, jnp.float32)}
    if model.null_cond is not None:
      batch["cond"] = conditions.shapes(
        model.null_cond, *leading, sharding=where
      )
    coupling = self.plan.data.coupling
    if "pairs" in model.method.needs or (coupling and coupling.rows):
      batch["noise"] = batch["data"]
    return batch

  def jitted_step(self, template: TrainState, mesh: Mesh) -> jax.stages.Wrapped:
    """Return the jitted training step over a mesh; it donates the state.

    The seed is an argument, so runs that differ in it share one program in
    JAX's cache of compiled programs.

    Args:
      template: The shapes of the state, as `template` gives them.
      mesh: The devices.

    Returns:
      `(seed, state, batch) -> (state, metrics)`.
    """
    shardings = jax.tree.map(lambda x: x.sharding, template)
    everywhere = sharding.replicated(mesh)
    steps = self.train_step(divided=sharding.divides_parameters(mesh))

    def train_step(seed, state, batch):
      return steps(state, batch, seed)

    return jax.jit(
      sharding.with_mesh(mesh, train_step),
      donate_argnums=1,
      in_shardings=(everywhere, shardings, sharding.batch_sharding(mesh)),
      out_shardings=(shardings, everywhere),
    )

  @property
  def power_averages(self) -> dict[str, float]:
    """Averages by the power law, from which others are made: their gammas."""
    laws = self.plan.emas.items()
    return {k: law.gamma for k, law in laws if isinstance(law, Power)}

  def check_average(self, ema: str, *, training: bool = False) -> None:
    """Raise UsageError unless the run has an average of this name.

    While `training` it has those only that it tracks.
    """
    names = ["online", *self.plan.emas]
    if ema in names:
      return
    if posthoc.law_of(ema) is None:
      raise UsageError(
        f"ema={ema!r} is no average of this run: choose one of "
        f"{', '.join(names)}, or width=W of a power average"
      )
    if training or not self.power_averages:
      raise UsageError(
        f"ema={ema!r} is made of power averages in checkpoints: train with "
        f"one of {', '.join(names)} and with ema.NAME.name=power, and ask for "
        "a width afterwards"
      )

  def remarks(
    self, ema: str, updates: int, guidance: float = 1.0
  ) -> Iterator[str]:
    """Yield a line for all that makes samples other than one may think."""
    guided_by = self.plan.sample.guided_by
    if guided_by and guidance != 1:
      yield (
        f"guidance={guidance} guides a network that was trained with "
        f"{guided_by}: it is guided twice"
      )
    if ema == "online" or not updates:
      return
    law = self.plan.emas.get(ema) or posthoc.law_of(ema)
    share = share_of_start(law, updates) if law else 0
    if share > _LARGEST_SHARE:
      yield (
        f"{share:.0%} of the average {ema!r} are still the weights with which "
        f"training began ({updates:,} updates): take 'online', or train with "
        f"ema.{ema}.name=power, which suits any length"
      )

  def select(self, state: TrainState, ema: str) -> PyTree:
    """Return the average of a name, or the parameters for "online".

    They are the network's, an adapter's merged with its base.
    """
    self.check_average(ema)
    found = state.params if ema == "online" else state.ema[ema]
    if BASE not in state.frozen:
      return found
    assert self.plan.adapter is not None
    base = state.frozen[BASE]
    shardings = jax.tree.map(lambda x: x.sharding, base)
    merge = jax.jit(self.plan.adapter.merge, out_shardings=shardings)
    return merge(base, found)

  def merged(self, state: TrainState, ema: str) -> TrainState:
    """Return the state with one average, and without the base of an adapter."""
    if BASE not in state.frozen:
      return state
    params = self.select(state, ema)
    frozen = {k: v for k, v in state.frozen.items() if k != BASE}
    if ema == "online":
      return dataclasses.replace(state, params=params, frozen=frozen)
    return dataclasses.replace(state, ema={ema: params}, frozen=frozen)

  def _whole(self, state: TrainState) -> PyTree:
    """Return the network's parameters in a traced state."""
    if self.plan.adapter is None:
      return state.params
    return self.plan.adapter.merge(state.frozen[BASE], state.params)


def _sharded(state: Any, mesh: Mesh) -> Any:
  """Return shapes with the shardings of a mesh."""
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    state,
    sharding.parameter_shardings(state, mesh),
  )
