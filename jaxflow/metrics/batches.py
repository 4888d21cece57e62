"""Batches of one size, so that one compiled program serves all samples."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxflow.errors import UsageError
from jaxflow.types import Array, ModelFn, PyTree


def check_rows(name: str, rows: np.ndarray, what: str, **counts: int) -> None:
  """Raise UsageError unless rows [N, ...] are finite, and counts positive.

  Errors call the argument `name` and its rows `what`.
  """
  if rows.ndim < 2 or not rows.size or not np.isfinite(rows).all():
    raise UsageError(
      f"{name} of shape {rows.shape}: give finite {what}, [N, ...]"
    )
  for key, value in counts.items():
    if value < 1:
      raise UsageError(f"{key}={value}: give at least 1")


def in_batches(
  compute: Callable[[NDArray[np.intp], Array, PyTree], PyTree],
  rows: np.ndarray,
  cond: PyTree,
  batch_size: int,
) -> Any:
  """Return arrays [..., N] that a function computes of samples [N, ...].

  It takes indices [B], samples [B, ...] and their condition, and returns arrays
  [..., B]. The last batch is filled up from the first samples.

  Example:
    >>> in_batches(lambda i, x, cond: i - x, np.ones(3), None, 2).tolist()
    [-1.0, 0.0, 1.0]
  """
  num = len(rows)

  def batch(start: int) -> PyTree:
    index = np.arange(start, start + min(batch_size, num)) % num
    samples, label = jax.tree.map(lambda x: jnp.asarray(x[index]), (rows, cond))
    found = compute(index, samples, label)
    return jax.tree.map(lambda x: np.asarray(x, np.float64), found)

  return jax.tree.map(
    lambda *parts: np.concatenate(parts, axis=-1)[..., :num],
    *(batch(start) for start in range(0, num, batch_size)),
  )


def as_argument(velocity_fn: ModelFn) -> ModelFn:
  """Make a function a pytree, so that a jitted function can take it."""
  if isinstance(velocity_fn, jax.tree_util.Partial):
    return velocity_fn
  return jax.tree_util.Partial(velocity_fn)
