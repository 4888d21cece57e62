"""Batches of one size, so that one compiled program serves all samples."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxflow.types import Array, ModelFn, PyTree


def full_batches(
  rows: np.ndarray, cond: PyTree, batch_size: int
) -> Iterator[tuple[NDArray[np.intp], Array, PyTree]]:
  """Cut samples into batches and fill up the last from the first samples.

  Args:
    rows: Samples, [N, ...].
    cond: Arrays [N, ...], or None.
    batch_size: B, reduced to N if N is less.

  Yields:
    Indices [B], samples [B, ...] and their condition.

  Example:
    >>> parts = full_batches(np.arange(3.0), None, 2)
    >>> [x.tolist() for _, x, _ in parts]
    [[0.0, 1.0], [2.0, 0.0]]
  """

  def take(index: NDArray[np.intp]) -> PyTree:
    return jax.tree.map(lambda x: jnp.asarray(x[index]), (rows, cond))

  num = len(rows)
  for start in range(0, num, batch_size):
    index = np.arange(start, start + min(batch_size, num)) % num
    points, label = take(index)
    yield index, points, label


def as_argument(velocity_fn: ModelFn) -> ModelFn:
  """Make a function a pytree, so that a jitted function can take it."""
  if isinstance(velocity_fn, jax.tree_util.Partial):
    return velocity_fn
  return jax.tree_util.Partial(velocity_fn)
