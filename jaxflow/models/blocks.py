"""A stack of transformer blocks, unrolled or scanned, and its two layouts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxflow.models.network import abstract_graph, init_parameters, rngs_of
from jaxflow.models.transformer import Block
from jaxflow.types import Array, PyTree


class Blocks(nnx.Module):
  """A stack of equal blocks, unrolled or scanned: the same function.

  Unrolled, the parameters are {"block_0": ..., "block_1": ...}; scanned, they
  are {"stacked": ...} with a leading layer axis, and the compiler sees one
  block instead of `depth`. One key gives both the same initial values.
  """

  def __init__(
    self,
    make_block: Callable[[nnx.Rngs], Block],
    depth: int,
    *,
    scan: bool,
    remat: bool,
    rngs: nnx.Rngs,
  ):
    self.depth = depth
    self.scan = scan
    self.remat = remat
    keys = jax.random.split(rngs.params(), depth)
    if scan:
      params = jax.vmap(lambda key: init_parameters(make_block, key))(keys)
      self.stacked = nnx.merge(abstract_graph(make_block), params)
    else:
      for i in range(depth):
        setattr(self, f"block_{i}", make_block(rngs_of(keys[i])))

  def __call__(
    self, x: Array, c: Array, key: Array | None, part: slice | None = None
  ) -> Array:
    """Return the tokens [B, T, width] after all blocks, or a part of them."""
    part = part or slice(None)
    keys = None if key is None else jax.random.split(key, self.depth)
    if self.scan:
      graph, state = nnx.split(self.stacked)
      layers = (nnx.to_pure_dict(state), keys)
      layers = jax.tree.map(lambda x: x[part], layers)
      return jax.lax.scan(self._step(graph, c), x, layers)[0]
    for i in range(self.depth)[part]:
      graph, state = nnx.split(getattr(self, f"block_{i}"))
      block_key = None if keys is None else keys[i]
      layer = (nnx.to_pure_dict(state), block_key)
      x, _ = self._step(graph, c)(x, layer)
    return x

  def _step(self, graph: nnx.GraphDef, c: Array) -> Callable:
    def step(x: Array, layer: PyTree) -> tuple[Array, None]:
      params, key = layer
      return nnx.merge(graph, params, copy=True)(x, c, key), None

    if self.remat:
      # A scan already keeps the recomputation from being merged away.
      return jax.checkpoint(step, prevent_cse=not self.scan)
    return step


def stack_blocks(blocks: dict[str, Any]) -> dict[str, Any]:
  """Convert the parameters of unrolled blocks to those of scanned ones.

  Args:
    blocks: {"block_0": ..., "block_1": ...}: `params["blocks"]` of a network.

  Returns:
    {"stacked": ...} with a leading axis of layers.

  Example:
    >>> import jax.numpy as jnp
    >>> blocks = {"block_0": {"w": jnp.ones(3)}, "block_1": {"w": jnp.ones(3)}}
    >>> stack_blocks(blocks)["stacked"]["w"].shape
    (2, 3)
  """
  layers = [blocks[f"block_{i}"] for i in range(len(blocks))]
  return {"stacked": jax.tree.map(lambda *x: jnp.stack(x), *layers)}


def unstack_blocks(blocks: dict[str, Any]) -> dict[str, Any]:
  """Convert the parameters of scanned blocks to those of unrolled ones.

  Example:
    >>> import jax.numpy as jnp
    >>> sorted(unstack_blocks({"stacked": {"w": jnp.ones((2, 3))}}))
    ['block_0', 'block_1']
  """
  stacked = blocks["stacked"]
  depth = jax.tree.leaves(stacked)[0].shape[0]
  return {
    f"block_{i}": jax.tree.map(lambda x, i=i: x[i], stacked)
    for i in range(depth)
  }
