"""Gradients of a batch in micro-batches, and the updates that they make."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxflow.training.state import TrainState
from jaxflow.types import Array, Batch, LossOutput, PyTree

# (parameters to train, state, key, batch) -> (loss [B], metrics).
LossFn = Callable[[PyTree, TrainState, Array, Batch], LossOutput]


def mean_gradient(
  loss_fn: LossFn, params: PyTree, state: TrainState, key: Array, batch: Batch
) -> tuple[PyTree, dict[str, Array]]:
  """Average gradient and metrics over the micro-batches.

  Returns:
    The gradient of the mean loss, and the metrics with the mean as "loss".
  """

  def mean_loss(params, key, batch):
    loss, metrics = loss_fn(params, state, key, batch)
    return loss.mean(), metrics | {"loss": loss.mean()}

  compute = jax.grad(mean_loss, has_aux=True)
  count = jax.tree.leaves(batch)[0].shape[0]
  first = jax.tree.map(lambda x: x[0], batch)
  if count == 1:
    return compute(params, key, first)

  def add(total, given):
    index, micro_batch = given
    part = compute(params, jax.random.fold_in(key, index), micro_batch)
    return jax.tree.map(jnp.add, total, part), None

  shapes = jax.eval_shape(compute, params, key, first)
  zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  total, _ = jax.lax.scan(add, zero, (jnp.arange(count), batch))
  return jax.tree.map(lambda x: x / count, total)


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
