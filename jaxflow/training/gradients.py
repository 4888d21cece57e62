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

  Args:
    loss_fn: The loss of each sample.
    params: Parameters by which it is differentiated.
    state: The state, for the other networks of the loss.
    key: Random key of the step.
    batch: Leaves `[micro-batches, rows, ...]`.

  Returns:
    The gradient of the mean loss, and the metrics with the mean as "loss".

  Example:
    >>> loss_fn = lambda p, state, key, b: (p * b["data"], {})
    >>> gradient, metrics = mean_gradient(
    ...     loss_fn, 2.0, None, jax.random.key(0),
    ...     {"data": jnp.array([[1.0, 2.0], [3.0, 6.0]])})
    >>> float(gradient), float(metrics["loss"])
    (3.0, 6.0)
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
  """Return new parameters, optimizer state, and the norm of the update.

  Example:
    >>> sgd = optax.sgd(0.5)
    >>> params, _, norm = apply_gradient(sgd, 4.0, sgd.init(1.0), 1.0)
    >>> float(params), float(norm)
    (-1.0, 2.0)
  """
  updates, opt_state = optimizer.update(gradient, opt_state, params)
  params = optax.apply_updates(params, updates)
  return params, opt_state, optax.tree.norm(updates)
