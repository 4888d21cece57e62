"""The training step: one jitted function that takes several steps a dispatch.

A batch has leading axes `[steps, micro-batches, rows]`. Steps run in a
`lax.scan` (one dispatch for many steps of a small model); micro-batches are
accumulated in an inner scan. The random key of a step is `fold_in(seed, step)`,
so a resumed run draws the same numbers as an uninterrupted one.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxflow.errors import UsageError, named
from jaxflow.methods import Method
from jaxflow.options import Memory, Term, marked
from jaxflow.training import ema as ema_lib
from jaxflow.training import layers
from jaxflow.training.companions import (
  ArgumentsFn,
  Learners,
  Move,
  MoveFn,
  take_turns,
)
from jaxflow.training.gradients import LossFn, apply_gradient, mean_gradient
from jaxflow.training.state import BASE, TrainState
from jaxflow.training.vectors import Packing
from jaxflow.types import Array, Batch, PyTree

# (params, xt, t, s, cond, key) -> prediction; key is for dropout, or None.
ApplyFn = Callable[..., Array]
# Functions that make arguments of a loss from parameters in the state.
ArgumentFns = Mapping[str, Callable[[dict[str, PyTree]], Any]]
# Begins the names of the metrics of a dispatch's first step.
FIRST = "first "
TrainStep = Callable[..., tuple[TrainState, dict[str, Array]]]
# The parts of the state that have the shapes of the parameters and change.
_MOVING = ("params", "opt_state", "ema")


def make_loss_fn(
  method: Method,
  apply_fn: ApplyFn,
  options: Mapping[str, Any],
  *,
  frozen_fns: ArgumentFns | None = None,
  learned_fns: ArgumentFns | None = None,
  companion_fns: Mapping[str, ArgumentsFn] | None = None,
  last_layer: str = "",
  only: str = "",
  steps: int = 1,
  merge: Callable[[PyTree, PyTree], PyTree] | None = None,
) -> LossFn:
  """Bind a method's loss to a network.

  It is `(params, state, key, batch)` -> what the loss returns.

  `frozen_fns` make arguments of the loss from the state's frozen parameters,
  `learned_fns` from its own, `companion_fns` from those of each companion;
  without it, terms that need it are left out. `last_layer` is a regular
  expression of one parameter's path, `only` one that is found in the paths of
  all that learn; `steps` is the unit of `progress`; `merge` makes the network's
  parameters of the state's base and of those that learn.
  """
  frozen_fns, learned_fns = frozen_fns or {}, learned_fns or {}

  def of_companions(state):
    made = {}
    for name, make in (companion_fns or {}).items():
      if name in state.companions:
        params = jax.lax.stop_gradient(state.companions[name].params)
        made |= make(params, state.frozen)
      else:
        terms = marked(method.loss, Term).items()
        made |= {k: 0.0 for k, term in terms if term.argument == name}
    return made

  def loss_fn(params, state, key, batch):
    if "pairs" in method.needs and "noise" not in batch:
      raise UsageError(
        "the data are no pairs, and this method trains on pairs: give data "
        "with the noise from which a teacher made them, or another method"
      )
    loss_key, dropout_key = jax.random.split(key)
    if only:
      params = layers.stopped_but(params, only)

    def whole(params):
      return merge(state.frozen[BASE], params) if merge else params

    def network(params):
      return functools.partial(apply_fn, params, key=dropout_key)

    params = whole(params)

    roles = {name: make(state.frozen) for name, make in frozen_fns.items()}
    roles |= {k: make(state.loss_params) for k, make in learned_fns.items()}
    roles |= {name: state.memory[name] for name in marked(method.loss, Memory)}
    if "target" in method.needs:
      roles["target_fn"] = network(whole(state.ema["target"]))
    if "progress" in method.needs:
      roles["progress"] = jnp.minimum(state.step / steps, 1.0)
    if last_layer:
      with named(pattern="last_layer"):
        put, layer = layers.split(params, last_layer)
      roles["last_layer"] = (lambda layer: network(put(layer))), layer
    roles |= of_companions(state)
    return method.loss(network(params), loss_key, batch, **{**options, **roles})

  return loss_fn


def make_train_step(
  loss_fn: LossFn,
  optimizer: optax.GradientTransformation,
  emas: Mapping[str, ema_lib.Law],
  *,
  seed: int,
  learners: Learners | None = None,
  project: Callable[[PyTree], PyTree] | None = None,
  packs: bool = False,
  impl: str | None = None,
) -> TrainStep:
  """Make the training step; the caller jits it and donates the state.

  A step whose loss or gradient is not finite changes nothing but the counters.
  `project` is applied to the parameters behind every update; averages are of
  what it returns. `packs` allows what has the parameters' shapes to be vectors
  within a dispatch: the optimizer must treat every number by itself, and no
  axis of the mesh may split a parameter. `impl` is the generator of random
  numbers, as for `jax.random.key`.

  Returns:
    `(state, batch, seed=seed) -> (state, metrics)`, with batch leaves
    `[steps, micro-batches, rows, ...]`. A metric is the mean over the good
    steps that measured it, NaN where there is none; `skipped` counts the steps
    that were not good. Those of the first step alone begin with FIRST.
  """

  def loss_of_trained(trained, state, key, batch):
    state = state.with_trained(trained)
    return loss_fn(state.params, state, key, batch)

  def student(
    packing: Packing,
    like: TrainState,
    state: TrainState,
    key: Array,
    batch: Batch,
  ) -> Move:
    whole = _unpacked(packing, state, like)
    gradient, metrics, memory = mean_gradient(
      loss_of_trained, whole.trained, whole, key, batch
    )
    gradient = packing.pack(gradient)
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(metrics["loss"] + norm)
    trained, opt_state, update_norm = apply_gradient(
      optimizer, gradient, state.opt_state, state.trained
    )
    moved = state.with_trained(trained)
    if project is not None:
      params = project(packing.unpack(moved.params, like.params))
      moved = dataclasses.replace(moved, params=packing.pack(params))
    updates = state.updates + 1
    averages = {
      name: ema_lib.update(state.ema[name], moved.params, law, updates)
      for name, law in emas.items()
    }
    metrics |= {"gradient_norm": norm, "update_norm": update_norm}
    new = {
      "params": moved.params,
      "loss_params": moved.loss_params,
      "opt_state": opt_state,
      "ema": averages,
      "updates": updates,
    }
    if memory:
      new["memory"] = memory
    return new, metrics, finite

  def one_step(move: MoveFn, carry: tuple[TrainState, Array], batch: Batch):
    state, seed = carry
    key = jax.random.fold_in(jax.random.key(seed, impl=impl), state.step)
    if not learners:
      new, metrics, finite = move(state, key, batch)
    else:
      new, metrics, finite = take_turns(move, learners, state, key, batch)
    old = {name: getattr(state, name) for name in new}
    new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
    metrics = {k: jnp.where(finite, v, jnp.nan) for k, v in metrics.items()}
    bad = 1 - finite.astype(jnp.int32)
    state = dataclasses.replace(
      state,
      **new,
      step=state.step + 1,
      skipped=state.skipped + bad,
      skipped_in_row=(state.skipped_in_row + 1) * bad,
    )
    return (state, seed), (metrics, bad)

  @functools.cache
  def step_of(packing: Packing, structure: Any):
    # Always the same function, of which JAX keeps the trace.
    like = jax.tree.unflatten(structure, range(structure.num_leaves))
    return functools.partial(
      one_step, functools.partial(student, packing, like)
    )

  def train_step(state, batch, seed=seed):
    packing = Packing()
    if packs and not (learners or state.loss_params):
      packing = Packing.of(state.params)
    step = step_of(packing, jax.tree.structure(state))
    # The seed is carried: one trace of a step serves dispatches of any length.
    carry = _packed(packing, state), jnp.asarray(seed, jnp.uint32)
    (packed, _), (metrics, bad) = jax.lax.scan(step, carry, batch)
    state = _unpacked(packing, packed, state)
    means = {k: jnp.nanmean(v) for k, v in metrics.items()}
    first = {f"{FIRST}{k}": v[0] for k, v in metrics.items()}
    return state, means | first | {"skipped": bad.sum()}

  return train_step


def _packed(packing: Packing, state: TrainState) -> TrainState:
  """Return the state with vectors in what a step changes."""
  parts = {name: packing.pack(getattr(state, name)) for name in _MOVING}
  return dataclasses.replace(state, **parts)


def _unpacked(
  packing: Packing, packed: TrainState, like: TrainState
) -> TrainState:
  """Take back `_packed`, of a state that is now like another."""
  parts = {
    name: packing.unpack(getattr(packed, name), getattr(like, name))
    for name in _MOVING
  }
  return dataclasses.replace(packed, **parts)
