"""Stacks of transformer blocks, unrolled or scanned, and heads behind them.

References:
  Geng et al., 2025, arXiv:2512.02012: heads of several blocks each.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxflow.models.layers import TokenLinear, layer_norm
from jaxflow.models.network import abstract_module, init_parameters, rngs_of
from jaxflow.models.transformer import Block, Modulation, modulate
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
      self.stacked = nnx.merge(abstract_module(make_block)[0], params)
    else:
      for i in range(depth):
        setattr(self, f"block_{i}", make_block(rngs_of(keys[i])))

  def __call__(
    self, x: Array, c: Array, key: Array | None, part: slice = slice(None)
  ) -> Array:
    """Return the tokens [B, T, width] after all blocks, or a part of them."""
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

  Example:
    >>> blocks = {"block_0": {"w": jnp.ones(3)}, "block_1": {"w": jnp.ones(3)}}
    >>> stack_blocks(blocks)["stacked"]["w"].shape
    (2, 3)
  """
  layers = [blocks[f"block_{i}"] for i in range(len(blocks))]
  return {"stacked": jax.tree.map(lambda *x: jnp.stack(x), *layers)}


def unstack_blocks(blocks: dict[str, Any]) -> dict[str, Any]:
  """Convert the parameters of scanned blocks to those of unrolled ones.

  Example:
    >>> sorted(unstack_blocks({"stacked": {"w": jnp.ones((2, 3))}}))
    ['block_0', 'block_1']
  """
  leaves, tree = jax.tree.flatten(blocks["stacked"])
  layers = [tree.unflatten(layer) for layer in zip(*leaves, strict=True)]
  return {f"block_{i}": layer for i, layer in enumerate(layers)}


class Output(nnx.Module):
  """Tokens to pixels: a norm, its modulation, a layer that starts at zero."""

  def __init__(self, width: int, pixels: int, *, rngs: nnx.Rngs):
    self.norm = layer_norm(width, jnp.float32, rngs)
    self.modulation = Modulation(width, 2, dtype=jnp.float32, rngs=rngs)
    zeros = nnx.initializers.zeros
    self.output = TokenLinear(width, pixels, kernel_init=zeros, rngs=rngs)

  def project(self, x: Array, c: Array) -> Array:
    """Return the patches [B, T, pixels] of tokens [B, T, width], float32."""
    shift, scale = self.modulation(c)
    return self.output(modulate(self.norm(x), shift, scale))


class Head(Output):
  """An output behind blocks of its own, or none."""

  def __init__(
    self, blocks: Blocks | None, width: int, pixels: int, *, rngs: nnx.Rngs
  ):
    super().__init__(width, pixels, rngs=rngs)
    self.blocks = blocks

  def __call__(self, x: Array, c: Array, key: Array | None) -> Array:
    """Return the patches [B, T, pixels] of tokens [B, T, width]."""
    if self.blocks is not None:
      x = self.blocks(x, c, key)
    return self.project(x, c)
