"""The transformer block with adaptive layer normalisation.

A block computes, with (shift, scale, gate) x 2 = Linear(SiLU(c)),

  x <- x + gate_1 * Attention(LN(x) * (1 + scale_1) + shift_1)
  x <- x + gate_2 * MLP(LN(x) * (1 + scale_2) + shift_2)

The linear map starts at zero, so every block starts as the identity.

References:
  Peebles and Xie, 2022, arXiv:2212.09748, section 3.2.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxflow.models.layers import TokenLinear, by_rows, layer_norm
from jaxflow.types import Array

_linear = functools.partial(
  TokenLinear, kernel_init=nnx.initializers.xavier_uniform()
)


class Modulation(nnx.Module):
  """Maps a condition [B, width] to `parts` vectors [B, 1, width]."""

  def __init__(self, width: int, parts: int, *, dtype: Any, rngs: nnx.Rngs):
    self.parts = parts
    zeros = nnx.initializers.zeros
    self.linear = nnx.Linear(
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
    self.qkv = _linear(width, 3 * width, dtype=dtype, rngs=rngs)
    self.output = _linear(width, width, dtype=dtype, rngs=rngs)

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
  """Attention and an MLP of ratio 4, both shifted, scaled and gated."""

  def __init__(
    self,
    width: int,
    num_heads: int,
    *,
    dropout: float,
    dtype: Any,
    rngs: nnx.Rngs,
  ):
    self.norm = layer_norm(width, dtype, rngs)
    self.modulation = Modulation(width, 6, dtype=dtype, rngs=rngs)
    self.attention = Attention(width, num_heads, dtype=dtype, rngs=rngs)
    self.expand = _linear(width, 4 * width, dtype=dtype, rngs=rngs)
    self.contract = _linear(4 * width, width, dtype=dtype, rngs=rngs)
    self.dropout = nnx.Dropout(dropout)

  def __call__(self, x: Array, c: Array, key: Array | None) -> Array:
    """Return tokens [B, T, width] after the block, of a condition [B, width].

    A key drops units; None drops none.
    """
    keys = [None] * 3 if key is None else jax.random.split(key, 3)
    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(c)
    h = self.attention(modulate(self.norm(x), shift_1, scale_1))
    x = x + gate_1 * self._drop(h, keys[0])
    h = self.expand(modulate(self.norm(x), shift_2, scale_2))
    h = self._drop(jax.nn.gelu(h, approximate=True), keys[1])
    return x + gate_2 * self._drop(self.contract(h), keys[2])

  def _drop(self, x: Array, key: Array | None) -> Array:
    return self.dropout(x, deterministic=key is None, rngs=key)
