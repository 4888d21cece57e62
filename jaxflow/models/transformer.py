"""Transformer blocks with adaptive layer normalisation, stacks of them, heads.

A block computes, with (shift, scale, gate) x 2 = Linear(SiLU(c)),

  x <- x + gate_1 * Attention(LN(x) * (1 + scale_1) + shift_1)
  x <- x + gate_2 * MLP(LN(x) * (1 + scale_2) + shift_2)

The linear map starts at zero, so every block starts as the identity.

References:
  Peebles and Xie, 2022, arXiv:2212.09748, section 3.2.
  Geng et al., 2025, arXiv:2512.02012: heads of several blocks each.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxflow.models.embeddings import Embedding, condition
from jaxflow.models.layers import TokenLinear, by_rows, layer_norm
from jaxflow.models.network import abstract_module, init_parameters, rngs_of
from jaxflow.types import Array, PyTree

_linear = functools.partial(
  TokenLinear, kernel_init=nnx.initializers.xavier_uniform()
)


class Modulation(nnx.Module):
  """Maps a condition [B, width] to `parts` vectors [B, 1, width]."""

  def __init__(self, width: int, parts: int, *, dtype: Any, rngs: nnx.Rngs):
    self.parts = parts
    zeros = nnx.initializers.zeros
    self.linear: nnx.Linear = nnx.Linear(
      width, parts * width, kernel_init=zeros, dtype=dtype, rngs=rngs
    )

  def __call__(self, c: Array) -> list[Array]:
    """Return the vectors in the order in which blocks unpack them."""
    vectors = by_rows(self.linear(jax.nn.silu(by_rows(c))))[:, None, :]
    return jnp.split(vectors, self.parts, axis=-1)


def modulate(x: Array, shift: Array, scale: Array) -> Array:
  """Compute `x * (1 + scale) + shift`; x [B, T, D], the others [B, 1, D]."""
  return x * (1 + scale) + shift


class Attention(nnx.Module):
  """Multi-head self-attention over tokens [B, T, width]."""

  def __init__(self, width: int, num_heads: int, *, dtype: Any, rngs: nnx.Rngs):
    self.num_heads = num_heads
    self.qkv: TokenLinear = _linear(width, 3 * width, dtype=dtype, rngs=rngs)
    self.output: TokenLinear = _linear(width, width, dtype=dtype, rngs=rngs)

  def __call__(self, x: Array) -> Array:
    """Return the attended tokens [B, T, width]."""
    batch, tokens, width = x.shape
    # Heads come first, so that devices may share them out.
    heads = (batch, tokens, self.num_heads, 3, width // self.num_heads)
    qkv = self.qkv(x).reshape(heads)
    # The fused kernels have no forward-mode derivative; XLA's attention has.
    attended = jax.nn.dot_product_attention(
      *(qkv[:, :, :, i] for i in range(3)), implementation="xla"
    )
    return self.output(attended.reshape(x.shape))


class Block(nnx.Module):
  """Attention and an MLP of ratio 4, both shifted, scaled and gated.

  A block with an `embedding` of its own makes its condition of the network's
  inputs.
  """

  def __init__(
    self,
    width: int,
    num_heads: int,
    *,
    dropout: float,
    dtype: Any,
    rngs: nnx.Rngs,
    mlp_epsilon: float = 1e-6,
    make_embedding: Callable[[nnx.Rngs], Embedding] | None = None,
  ):
    self.norm: nnx.LayerNorm = layer_norm(width, dtype, rngs)
    self.mlp_norm: nnx.LayerNorm = layer_norm(
      width, dtype, rngs, epsilon=mlp_epsilon
    )
    self.modulation: Modulation = Modulation(width, 6, dtype=dtype, rngs=rngs)
    self.attention: Attention = Attention(
      width, num_heads, dtype=dtype, rngs=rngs
    )
    self.expand: TokenLinear = _linear(width, 4 * width, dtype=dtype, rngs=rngs)
    self.contract: TokenLinear = _linear(
      4 * width, width, dtype=dtype, rngs=rngs
    )
    self.dropout: nnx.Dropout = nnx.Dropout(dropout)
    self.embedding = make_embedding and make_embedding(rngs)

  def __call__(self, x: Array, c: PyTree, key: Array | None) -> Array:
    """Return tokens [B, T, width] after the block, of a condition [B, width].

    With an embedding of its own the condition is (t, s, cond). A key drops
    units; None drops none.
    """
    keys = [None] * 3 if key is None else jax.random.split(key, 3)
    if self.embedding is not None:
      c = condition(self.embedding, *c)
    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(c)
    h = self.attention(modulate(self.norm(x), shift_1, scale_1))
    x = x + gate_1 * self._drop(h, keys[0])
    h = self.expand(modulate(self.mlp_norm(x), shift_2, scale_2))
    h = self._drop(jax.nn.gelu(h, approximate=True), keys[1])
    return x + gate_2 * self._drop(self.contract(h), keys[2])

  def _drop(self, x: Array, key: Array | None) -> Array:
    return self.dropout(x, deterministic=key is None, rngs=key)


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

  def first(self) -> Block:
    """Return the first block."""
    if not self.scan:
      return getattr(self, f"block_{0}")
    graph, state = nnx.split(self.stacked)
    params = jax.tree.map(lambda x: x[0], nnx.to_pure_dict(state))
    return nnx.merge(graph, params, copy=True)

  def __call__(
    self, x: Array, c: PyTree, key: Array | None, part: slice = slice(None)
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

  def _step(self, graph: nnx.GraphDef, c: PyTree) -> Callable:
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
    self.norm: nnx.LayerNorm = layer_norm(width, jnp.float32, rngs)
    self.modulation: Modulation = Modulation(
      width, 2, dtype=jnp.float32, rngs=rngs
    )
    zeros = nnx.initializers.zeros
    self.output: TokenLinear = TokenLinear(
      width, pixels, kernel_init=zeros, rngs=rngs
    )

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
