"""Layers that several networks share, and where their activations lie."""

import math
from typing import Any

import jax
from flax import nnx
from jax.sharding import AbstractMesh, PartitionSpec

from jaxflow.types import Array

# The axes of a mesh over which rows are split, as `parallel.sharding` has them.
_ROWS = ("data", "fsdp")
# The axis over which heads are.
_HEADS = "tensor"


def by_rows(x: Array, rows: int | None = None) -> Array:
  """Keep `x` split along its first axis over the mesh in force, if any.

  Its other axes are left to the compiler. Where parameters are split too, the
  compiler may else gather the activations of all rows on every device and leave
  the parameters where they are.

  Args:
    x: Activations [rows, ...], or [rows x tokens, ...], sample by sample.
    rows: Number of samples; None for the length of `x`. Samples that the mesh
      does not divide are left to the compiler.
  """
  axes = _row_axes(x.shape[0] if rows is None else rows)
  if not axes:
    return x
  rest = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
  return jax.lax.with_sharding_constraint(x, PartitionSpec(axes, *rest))


def heads_by_device(
  rows: int, heads: int
) -> tuple[AbstractMesh | None, PartitionSpec]:
  """Return the mesh in force and where arrays [rows, heads, ...] lie on it.

  Devices share out rows and heads that the mesh divides. Without a mesh it is
  None.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return None, PartitionSpec()
  shared = _HEADS in mesh.axis_names and heads % mesh.shape[_HEADS] == 0
  return mesh, PartitionSpec(
    _row_axes(rows) or None, _HEADS if shared else None
  )


def _row_axes(rows: int) -> tuple[str, ...]:
  """Return the axes of the mesh in force that split rows; none: ()."""
  mesh = jax.sharding.get_abstract_mesh()
  axes = tuple(axis for axis in _ROWS if axis in mesh.axis_names)
  # A device holds whole samples, else their tokens would move.
  return () if rows % math.prod(mesh.shape[axis] for axis in axes) else axes


class TokenLinear(nnx.Linear):
  """A linear map of tokens [B, T, D], computed on [B T, D].

  The gradient of its kernel is then one plain matrix product: on CPU, XLA takes
  2.5 times as long for the backward pass of a small transformer without it.
  """

  def __call__(self, inputs: Array, out_sharding: Any = None) -> Array:
    """Return [B, T, features]."""
    rows = inputs.shape[0]
    flat = by_rows(inputs.reshape(-1, inputs.shape[-1]), rows)
    output = by_rows(super().__call__(flat, out_sharding), rows)
    return output.reshape(*inputs.shape[:-1], output.shape[-1])


def layer_norm(
  width: int, dtype: Any, rngs: nnx.Rngs, *, epsilon: float = 1e-6
) -> nnx.LayerNorm:
  """Make a layer norm without weights; its statistics are float32."""
  return nnx.LayerNorm(
    width,
    epsilon=epsilon,
    use_bias=False,
    use_scale=False,
    use_fast_variance=False,
    dtype=dtype,
    rngs=rngs,
  )


def rms_norm(
  width: int, dtype: Any, rngs: nnx.Rngs, *, epsilon: float = 1e-6
) -> nnx.RMSNorm:
  """Make an RMS norm with weights; its statistics are float32."""
  return nnx.RMSNorm(width, epsilon=epsilon, dtype=dtype, rngs=rngs)


def group_norm(
  width: int,
  groups: int,
  dtype: Any,
  rngs: nnx.Rngs,
  *,
  epsilon: float = 1e-6,
) -> nnx.GroupNorm:
  """Make a group norm; its statistics are float32.

  The fast variance, E x^2 - (E x)^2, would lose what a large mean hides.
  """
  return nnx.GroupNorm(
    width,
    groups,
    epsilon=epsilon,
    use_fast_variance=False,
    dtype=dtype,
    rngs=rngs,
  )


def rectify(x: Array) -> Array:
  """Compute a leaky rectifier of slope 0.2 below zero."""
  return jax.nn.leaky_relu(x, 0.2)
