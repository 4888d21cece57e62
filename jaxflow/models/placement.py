"""Layout of activations when a network runs on many devices."""

import math

import jax
from jax.sharding import PartitionSpec

from jaxflow.types import Array

# The axes of a mesh over which rows are split, as `training.sharding` has them.
_ROWS = ("data", "fsdp")


def by_rows(x: Array, rows: int | None = None) -> Array:
  """Keep `x` split along its first axis over the mesh in force, if any.

  Its other axes are left to the compiler. Where parameters are split too, the
  compiler may else gather the activations of all rows on every device and leave
  the parameters where they are.

  Args:
    x: Activations [rows, ...], or [rows x tokens, ...], sample by sample.
    rows: Number of samples; default: the length of `x`. Samples that the mesh
      does not divide are left to the compiler.

  Returns:
    `x`, of the same values.

  Example:
    >>> import jax.numpy as jnp
    >>> by_rows(jnp.ones((2, 3))).shape
    (2, 3)
  """
  mesh = jax.sharding.get_abstract_mesh()
  axes = tuple(axis for axis in _ROWS if axis in mesh.axis_names)
  count = math.prod(mesh.shape[axis] for axis in axes)
  # A device holds whole samples, else their tokens would move.
  if not axes or (len(x) if rows is None else rows) % count:
    return x
  rest = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
  return jax.lax.with_sharding_constraint(x, PartitionSpec(axes, *rest))
