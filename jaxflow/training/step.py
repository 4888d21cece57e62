"""The training step: one jitted function that takes several steps a dispatch.

A batch has leading axes `[steps, micro-batches, rows]`. Steps run in a
`lax.scan` (one dispatch for many steps of a small model); micro-batches are
accumulated in an inner scan. The random key of a step is
`fold_in(seed, step)`, so a resumed run draws what an uninterrupted one would.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxflow.errors import UsageError
from jaxflow.methods import Method
from jaxflow.training import ema as ema_lib
from jaxflow.training.state import TrainState
from jaxflow.types import Array, Batch, LossOutput, ModelFn, PyTree

# (params, xt, t, s, cond, key) -> prediction; key is for dropout, or None.
ApplyFn = Callable[..., Array]
LossFn = Callable[[PyTree, TrainState, Array, Batch], LossOutput]


def make_loss_fn(
  method: Method,
  apply_fn: ApplyFn,
  options: Mapping[str, Any],
  *,
  teacher_fn: Callable[[PyTree], ModelFn] | None = None,
  steps: int = 1,
) -> LossFn:
  """Bind a method's loss to a network.

  Args:
    method: The row of METHODS.
    apply_fn: The network, `(params, xt, t, s, cond, key=None)`.
    options: Keyword arguments of the loss.
    teacher_fn: Makes the teacher's velocity network from its parameters.
    steps: Length of training, the unit of `progress`.

  Returns:
    `(params, state, key, batch) -> (loss [B], metrics)`.

  Example:
    >>> from jaxflow import paths, times
    >>> from jaxflow.methods import METHODS
    >>> loss_fn = make_loss_fn(
    ...     METHODS["flow_matching"], lambda p, x, t, s, c, key=None: p * x,
    ...     {"path": paths.Linear(), "sample_times": times.Uniform()})
    >>> loss, _ = loss_fn(jnp.ones(()), None, jax.random.key(0),
    ...                   {"data": jnp.zeros((2, 3))})
    >>> loss.shape
    (2,)
  """

  def loss_fn(params, state, key, batch):
    if "pairs" in method.needs and "noise" not in batch:
      raise UsageError(
        "the data are no pairs, and this method trains on pairs: give data "
        "with the noise from which a teacher made them, or another method"
      )
    loss_key, dropout_key = jax.random.split(key)
    roles = {}
    if "target" in method.needs:
      roles["target_fn"] = functools.partial(
        apply_fn, state.ema["target"], key=dropout_key
      )
    if "progress" in method.needs:
      roles["progress"] = jnp.minimum(state.step / steps, 1.0)
    if teacher_fn is not None:
      roles["teacher"] = teacher_fn(state.teacher)
    model_fn = functools.partial(apply_fn, params, key=dropout_key)
    return method.loss(model_fn, loss_key, batch, **options, **roles)

  return loss_fn


def make_train_step(
  loss_fn: LossFn,
  optimizer: optax.GradientTransformation,
  emas: Mapping[str, ema_lib.Law],
  *,
  seed: int,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
  """Make the training step; the caller jits it and donates the state.

  A step whose loss or gradient is not finite changes nothing but the counters.

  Args:
    loss_fn: As `make_loss_fn` makes it.
    optimizer: The optimizer.
    emas: Laws of the averages by name, as in `init_state`.
    seed: Seed of the run.

  Returns:
    `(state, batch) -> (state, metrics)`, with batch leaves
    `[steps, micro-batches, rows, ...]`; metrics are means over the good steps,
    `skipped` counts the others.

  Example:
    >>> loss_fn = lambda p, state, key, b: ((p - b["data"]) ** 2, {})
    >>> from jaxflow.training.state import init_state
    >>> sgd = optax.sgd(0.5)
    >>> step = make_train_step(loss_fn, sgd, {}, seed=0)
    >>> state, metrics = step(init_state(jnp.zeros(()), sgd, {}),
    ...                       {"data": jnp.ones((1, 1, 4))})
    >>> float(state.params), float(metrics["loss"])
    (1.0, 1.0)
  """

  def mean_loss(params, state, key, batch):
    loss, metrics = loss_fn(params, state, key, batch)
    return loss.mean(), metrics | {"loss": loss.mean()}

  def gradient(state, key, micro_batches):
    """Average over the micro-batches."""
    compute = jax.grad(mean_loss, has_aux=True)
    count = jax.tree.leaves(micro_batches)[0].shape[0]
    if count == 1:
      batch = jax.tree.map(lambda x: x[0], micro_batches)
      return compute(state.params, state, key, batch)

    def add(total, given):
      index, batch = given
      part = compute(state.params, state, jax.random.fold_in(key, index), batch)
      return jax.tree.map(jnp.add, total, part), None

    first = jax.tree.map(lambda x: x[0], micro_batches)
    shapes = jax.eval_shape(compute, state.params, state, key, first)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    total, _ = jax.lax.scan(add, zero, (jnp.arange(count), micro_batches))
    return jax.tree.map(lambda x: x / count, total)

  def one_step(state: TrainState, micro_batches):
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    grads, metrics = gradient(state, key, micro_batches)
    metrics["gradient_norm"] = optax.tree.norm(grads)
    finite = jnp.isfinite(metrics["loss"] + metrics["gradient_norm"])

    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics["update_norm"] = optax.tree.norm(updates)
    number = state.step - state.skipped + 1
    averages = {
      name: ema_lib.update(state.ema[name], params, law(number))
      for name, law in emas.items()
    }
    kept = state.params, state.opt_state, state.ema
    params, opt_state, averages = jax.tree.map(
      lambda new, old: jnp.where(finite, new, old),
      (params, opt_state, averages),
      kept,
    )
    bad = 1 - finite.astype(jnp.int32)
    new_state = TrainState(
      step=state.step + 1,
      params=params,
      opt_state=opt_state,
      ema=averages,
      teacher=state.teacher,
      skipped=state.skipped + bad,
      skipped_in_row=(state.skipped_in_row + 1) * bad,
    )
    return new_state, (metrics, finite)

  def train_step(state, batch):
    state, (metrics, finite) = jax.lax.scan(one_step, state, batch)
    good = finite.sum()
    means = jax.tree.map(
      lambda x: jnp.where(finite, x, 0).sum() / good, metrics
    )
    return state, means | {"skipped": len(finite) - good}

  return train_step
