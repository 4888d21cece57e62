"""Gradients of a batch in micro-batches, and the updates that they make."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxflow.training.state import TrainState
from jaxflow.types import Array, Batch, LossAndMemory, LossOutput, PyTree

# A gradient, metrics, and memories of the loss that are new, by argument.
Measured = tuple[PyTree, dict[str, Array], dict[str, PyTree]]

# (parameters to train, state, key, batch) -> what a loss returns.
LossFn = Callable[
  [PyTree, TrainState, Array, Batch], LossOutput | LossAndMemory
]


def mean_gradient(
  loss_fn: LossFn, params: PyTree, state: TrainState, key: Array, batch: Batch
) -> Measured:
  """Average gradient and metrics over the micro-batches.

  Memories of the loss pass from one micro-batch to the next.

  Returns:
    The gradient of the mean loss, the metrics with the mean as "loss", and the
    new memories.
  """

  def mean_loss(params, memory, key, batch):
    given = dataclasses.replace(state, memory={**state.memory, **memory})
    loss, metrics, *new = loss_fn(params, given, key, batch)
    return loss.mean(), (metrics | {"loss": loss.mean()}, *(new or [{}]))

  gradient_of = jax.grad(mean_loss, has_aux=True)

  def compute(*given):
    gradient, (metrics, memory) = gradient_of(params, *given)
    return (gradient, metrics), memory

  count = jax.tree.leaves(batch)[0].shape[0]
  first = jax.tree.map(lambda x: x[0], batch)
  if count == 1:
    means, memory = compute({}, key, first)
    return *means, memory

  def add(carry, given):
    (total, memory), (index, micro_batch) = carry, given
    key_of_part = jax.random.fold_in(key, index)
    part, memory = compute(memory, key_of_part, micro_batch)
    return (jax.tree.map(jnp.add, total, part), memory), None

  means, memory = jax.eval_shape(compute, {}, key, first)
  zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), means)
  kept = {name: state.memory[name] for name in memory}
  (total, memory), _ = jax.lax.scan(
    add, (zero, kept), (jnp.arange(count), batch)
  )
  return *jax.tree.map(lambda x: x / count, total), memory


def apply_gradient(
  optimizer: optax.GradientTransformation,
  gradient: PyTree,
  opt_state: PyTree,
  params: PyTree,
) -> tuple[PyTree, PyTree, Array]:
  """Return new parameters, optimizer state, and the norm of the update."""
  updates, opt_state = optimizer.update(gradient, opt_state, params)
  params = optax.apply_updates(params, updates)
  return params, opt_state, optax.tree.norm(updates)
