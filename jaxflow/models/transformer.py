"""Transformer blocks, modulated or gated, stacks of them, heads.

A block computes, with (shift, scale, gate) x 2 = Linear(SiLU(c)),

  x <- x + gate_1 * Attention(LN(x) * (1 + scale_1) + shift_1)
  x <- x + gate_2 * MLP(LN(x) * (1 + scale_2) + shift_2)

The linear map starts at zero, so every block starts as the identity. Blocks
that see their condition as tokens have neither shift nor scale, and gates that
are parameters. `Parts` says which norm, attention and MLP there are.

References:
  Peebles and Xie, 2022, arXiv:2212.09748, section 3.2.
  Geng et al., 2025, arXiv:2512.02012: heads of several blocks each.
  Su et al., 2021, arXiv:2104.09864: rotary positions.
  Shazeer, 2020, arXiv:2002.05202: SwiGLU.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxflow.models.attention import Kind, attention, kept
from jaxflow.models.embeddings import Embedding, condition, frequencies
from jaxflow.models.layers import TokenLinear, by_rows, layer_norm, rms_norm
from jaxflow.models.network import abstract_module, init_parameters, rngs_of
from jaxflow.types import Array, PyTree

# In-context transformers start with kernels of deviation 0.32 / sqrt(inputs).
_SCALED = nnx.initializers.variance_scaling(0.32**2, "fan_in", "normal")
_XAVIER = nnx.initializers.xavier_uniform()
_ZEROS = nnx.initializers.zeros


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
  """Of what blocks and outputs are made."""

  width: int
  num_heads: int
  modulated: bool = True  # Whether a condition shifts, scales and gates.
  norm: Literal["layer", "rms"] = "layer"  # "rms" has weights.
  mlp: Literal["gelu", "swiglu"] = "gelu"
  mlp_width: int = 0  # Hidden units; 0: 4 a feature.
  mlp_epsilon: float = 1e-6
  bias: bool = True  # Of attention and MLP.
  qk_norm: bool = False  # RMS norms of queries and keys.
  rotary: bool = False  # Queries and keys turned by their positions.
  attention: Kind = "auto"
  dropout: float = 0.0
  dtype: Any = jnp.float32

  def linear(
    self, before: int, after: int, rngs: nnx.Rngs, **options: Any
  ) -> TokenLinear:
    """Make a linear map of tokens inside of a block."""
    init = _XAVIER if self.modulated else _SCALED
    given = {"use_bias": self.bias, "dtype": self.dtype, **options}
    return TokenLinear(before, after, kernel_init=init, rngs=rngs, **given)

  def make_norm(
    self, rngs: nnx.Rngs, *, dtype: Any = None, epsilon: float = 1e-6
  ) -> Any:
    """Make a norm of tokens; its statistics are float32."""
    make = {"layer": layer_norm, "rms": rms_norm}[self.norm]
    return make(self.width, dtype or self.dtype, rngs, epsilon=epsilon)


class Modulation(nnx.Module):
  """Maps a condition [B, width] to `parts` vectors [B, 1, width]."""

  def __init__(self, width: int, parts: int, *, dtype: Any, rngs: nnx.Rngs):
    self.parts = parts
    self.linear: nnx.Linear = nnx.Linear(
      width, parts * width, kernel_init=_ZEROS, dtype=dtype, rngs=rngs
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

  def __init__(self, parts: Parts, rngs: nnx.Rngs):
    width, self.num_heads = parts.width, parts.num_heads
    self.rotary = parts.rotary
    self.kind: Kind = parts.attention
    self.qkv: TokenLinear = parts.linear(width, 3 * width, rngs)
    self.output: TokenLinear = parts.linear(width, width, rngs)
    norms = [
      rms_norm(width // self.num_heads, parts.dtype, rngs)
      for _ in range(2 * parts.qk_norm)
    ]
    self.query_norm, self.key_norm = norms or (None, None)

  def __call__(self, x: Array) -> Array:
    """Return the attended tokens [B, T, width]."""
    batch, tokens, width = x.shape
    # Heads come first, so that devices may share them out.
    heads = (batch, tokens, self.num_heads, 3, width // self.num_heads)
    qkv = self.qkv(x).reshape(heads)
    q, k, v = (qkv[:, :, :, i] for i in range(3))
    if self.query_norm is not None and self.key_norm is not None:
      q, k = self.query_norm(q), self.key_norm(k)
    if self.rotary:
      q, k = rotate(q), rotate(k)
    attended = attention(q, k, v, kind=self.kind)
    return self.output(attended.reshape(x.shape))


def rotate(x: Array) -> Array:
  """Turn the features of heads [B, T, heads, d] by their positions 0, 1, ....

  Feature i and feature i + d / 2 turn together, by a rate of their own.
  """
  _, tokens, _, features = x.shape
  angles = np.outer(np.arange(tokens), frequencies(features))
  cos, sin = (
    jnp.asarray(wave(angles)[None, :, None], jnp.float32)
    for wave in (np.cos, np.sin)
  )
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)


class Gates(nnx.Module):
  """Gates that are parameters in place of a condition's shifts and scales."""

  def __init__(self, width: int):
    self.attention: nnx.Param[Any] = nnx.Param(jnp.zeros(width, jnp.float32))
    self.mlp: nnx.Param[Any] = nnx.Param(jnp.zeros(width, jnp.float32))

  def __call__(self, dtype: Any) -> list[Any]:
    """Return shift, scale and gate of both branches, as `Modulation` does."""
    gates = (
      x[...][None, None].astype(dtype) for x in (self.attention, self.mlp)
    )
    zero = jnp.zeros((1, 1, 1), dtype)
    return [part for gate in gates for part in (zero, zero, gate)]


class Block(nnx.Module):
  """Attention and an MLP, both gated, and shifted and scaled by a condition.

  A block with an `embedding` of its own makes its condition of the network's
  inputs.
  """

  def __init__(
    self,
    parts: Parts,
    *,
    rngs: nnx.Rngs,
    make_embedding: Callable[[nnx.Rngs], Embedding] | None = None,
  ):
    width, dtype = parts.width, parts.dtype
    hidden = parts.mlp_width or 4 * width
    self.norm = parts.make_norm(rngs)
    self.mlp_norm = parts.make_norm(rngs, epsilon=parts.mlp_epsilon)
    if parts.modulated:
      self.modulation: Modulation = Modulation(width, 6, dtype=dtype, rngs=rngs)
    else:
      self.gates: Gates = Gates(width)
    self.attention: Attention = Attention(parts, rngs)
    self.expand: TokenLinear = parts.linear(width, hidden, rngs)
    self.contract: TokenLinear = parts.linear(hidden, width, rngs)
    self.dropout: nnx.Dropout = nnx.Dropout(parts.dropout)
    self.embedding = make_embedding and make_embedding(rngs)
    self.modulated = parts.modulated
    swish = parts.mlp == "swiglu"
    self.swish = parts.linear(width, hidden, rngs) if swish else None

  def __call__(self, x: Array, c: PyTree, key: Array | None) -> Array:
    """Return tokens [B, T, width] after the block, of a condition [B, width].

    With an embedding of its own the condition is (t, s, cond). A key drops
    units; None drops none.
    """
    keys = [None] * 3 if key is None else jax.random.split(key, 3)
    if self.embedding is not None:
      c = condition(self.embedding, *c)
    made = self.modulation(c) if self.modulated else self.gates(x.dtype)
    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = made
    h = self.attention(modulate(self.norm(x), shift_1, scale_1))
    x = x + gate_1 * self._drop(h, keys[0])
    h = self._hidden(modulate(self.mlp_norm(x), shift_2, scale_2))
    h = self.contract(self._drop(h, keys[1]))
    return x + gate_2 * self._drop(h, keys[2])

  def _hidden(self, x: Array) -> Array:
    """Return the hidden units of the MLP."""
    if self.swish is None:
      return jax.nn.gelu(self.expand(x), approximate=True)
    return jax.nn.silu(self.swish(x)) * self.expand(x)

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
    attention: Kind,
    scan: bool,
    remat: bool,
    rngs: nnx.Rngs,
  ):
    self.depth = depth
    self.attention: Kind = attention
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
      return jax.lax.scan(self._step(graph, c, x.shape[1]), x, layers)[0]
    for i in range(self.depth)[part]:
      graph, state = nnx.split(getattr(self, f"block_{i}"))
      block_key = None if keys is None else keys[i]
      layer = (nnx.to_pure_dict(state), block_key)
      x, _ = self._step(graph, c, x.shape[1])(x, layer)
    return x

  def _step(self, graph: nnx.GraphDef, c: PyTree, tokens: int) -> Callable:
    def step(x: Array, layer: PyTree) -> tuple[Array, None]:
      params, key = layer
      return nnx.merge(graph, params, copy=True)(x, c, key), None

    # A scan already keeps the recomputation from being merged away.
    if self.remat:
      return jax.checkpoint(step, prevent_cse=not self.scan)
    if self.scan:
      # A loop would keep every array of every block for the backward pass; all
      # but products is cheap to compute anew.
      return jax.checkpoint(
        step, prevent_cse=False, policy=kept(self.attention, tokens)
      )
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

  def __init__(self, parts: Parts, pixels: int, *, rngs: nnx.Rngs):
    self.norm = parts.make_norm(rngs, dtype=jnp.float32)
    self.modulated = parts.modulated
    if parts.modulated:
      self.modulation: Modulation = Modulation(
        parts.width, 2, dtype=jnp.float32, rngs=rngs
      )
    self.output: TokenLinear = TokenLinear(
      parts.width, pixels, kernel_init=_ZEROS, rngs=rngs
    )

  def project(self, x: Array, c: Array) -> Array:
    """Return the patches [B, T, pixels] of tokens [B, T, width], float32."""
    h = self.norm(x)
    if self.modulated:
      h = modulate(h, *self.modulation(c))
    return self.output(h)


class Head(Output):
  """An output behind blocks of its own, or none."""

  def __init__(
    self, blocks: Blocks | None, parts: Parts, pixels: int, *, rngs: nnx.Rngs
  ):
    super().__init__(parts, pixels, rngs=rngs)
    self.blocks = blocks

  def __call__(self, x: Array, c: Array, key: Array | None) -> Array:
    """Return the patches [B, T, pixels] of tokens [B, T, width]."""
    if self.blocks is not None:
      x = self.blocks(x, c, key)
    return self.project(x, c)
