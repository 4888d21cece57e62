"""Blocks of the DDPM++ U-Net: residual convolutions, resampling, attention.

A block computes, with e the embedding of times and label,

  h = conv(silu(norm(r(x)))) + linear(e)                                  (1)
  y = (skip(r(x)) + conv(drop(silu(norm(h))))) / sqrt2                    (2)
  z = (y + linear(attention(norm(y)))) / sqrt2                            (3)

where r halves or doubles the sides, or does nothing, and acts behind the first
norm and its SiLU; (3) is there where a block attends. The last linear map of
each branch starts at zero, so at first a block only resamples and rescales.

References:
  Song et al., 2021, arXiv:2011.13456, appendix H: DDPM++.
  Karras et al., 2022, arXiv:2206.00364, table 7: the same network in their
  notation; its initial values are these up to the zeros, 1e-5 times a uniform
  law there.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxflow.models import layers
from jaxflow.models.layers import TokenLinear
from jaxflow.models.unet_layout import Layer
from jaxflow.types import Array

_xavier = nnx.initializers.xavier_uniform()
_zeros = nnx.initializers.zeros


def group_norm(width: int, dtype: Any, rngs: nnx.Rngs) -> nnx.GroupNorm:
  """Make a group norm of up to 32 groups.

  A group has four channels or more, as published; where these do not divide
  the channels, there are fewer groups.
  """
  most = min(32, width // 4)
  groups = next(n for n in range(most, 0, -1) if width % n == 0)
  return layers.group_norm(width, groups, dtype, rngs)


def convolution(
  before: int, width: int, dtype: Any, rngs: nnx.Rngs, *, zero: bool = False
) -> nnx.Conv:
  """Make a 3 x 3 convolution that keeps the sides."""
  init = _zeros if zero else _xavier
  return nnx.Conv(
    before, width, (3, 3), kernel_init=init, dtype=dtype, rngs=rngs
  )


def halve(x: Array) -> Array:
  """Average every 2 x 2 pixels of images [B, H, W, C]."""
  batch, height, width, channels = x.shape
  squares = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
  return squares.mean((2, 4))


def double(x: Array) -> Array:
  """Repeat every pixel of images [B, H, W, C] as 2 x 2 pixels."""
  return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


# Changes of the sides of images.
RESAMPLE: dict[str, Callable[[Array], Array]] = {
  "keep": lambda x: x,
  "halve": halve,
  "double": double,
}


class Embedder(nnx.Module):
  """Maps features of a time [B, features] to vectors [B, width], float32."""

  def __init__(self, features: int, width: int, *, rngs: nnx.Rngs):
    self.hidden = nnx.Linear(features, width, kernel_init=_xavier, rngs=rngs)
    self.output = nnx.Linear(width, width, kernel_init=_xavier, rngs=rngs)

  def __call__(self, features: Array) -> Array:
    """Return the vectors."""
    return self.output(jax.nn.silu(self.hidden(features)))


class SelfAttention(nnx.Module):
  """Attention of one head among the pixels of an image."""

  def __init__(self, width: int, *, dtype: Any, rngs: nnx.Rngs):
    options = {"dtype": dtype, "rngs": rngs}
    init = nnx.initializers.variance_scaling(0.2, "fan_avg", "uniform")
    self.norm = group_norm(width, dtype, rngs)
    self.qkv = TokenLinear(width, 3 * width, kernel_init=init, **options)
    self.output = TokenLinear(width, width, kernel_init=_zeros, **options)

  def __call__(self, x: Array) -> Array:
    """Return the residual [B, H, W, width] of images."""
    batch, height, breadth, width = x.shape
    qkv = self.qkv(self.norm(x)).reshape(batch, height * breadth, 3, 1, width)
    # The fused kernels have no forward-mode derivative; XLA's attention has.
    attended = jax.nn.dot_product_attention(
      qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], implementation="xla"
    )
    return self.output(attended.reshape(x.shape))


class UNetBlock(nnx.Module):
  """One block of the U-Net, eq. (1)-(3)."""

  def __init__(
    self,
    layer: Layer,
    embedding: int,
    *,
    dropout: float,
    dtype: Any,
    rngs: nnx.Rngs,
  ):
    before, width = layer.before, layer.width
    linear = {"kernel_init": _xavier, "dtype": dtype, "rngs": rngs}
    self.resample = layer.resample
    self.norm_1 = group_norm(before, dtype, rngs)
    self.conv_1 = convolution(before, width, dtype, rngs)
    self.embedding = nnx.Linear(embedding, width, **linear)
    self.norm_2 = group_norm(width, dtype, rngs)
    self.conv_2 = convolution(width, width, dtype, rngs, zero=True)
    # Where the sides change there is a linear map too, as published.
    self.skip = (
      TokenLinear(before, width, **linear)
      if before != width or layer.resample != "keep"
      else None
    )
    self.attention = (
      SelfAttention(width, dtype=dtype, rngs=rngs) if layer.attention else None
    )
    self.dropout = nnx.Dropout(dropout)

  def __call__(self, x: Array, embedding: Array, key: Array | None) -> Array:
    """Return images [B, H', W', width] of [B, H, W, before], in their type.

    The embedding [B, embedding] is that of times and label. A key drops units;
    None drops none.
    """
    resample = RESAMPLE[self.resample]
    h = self.conv_1(resample(jax.nn.silu(self.norm_1(x))))
    h = self.norm_2(h + self.embedding(embedding)[:, None, None, :])
    h = jax.nn.silu(h)
    h = self.dropout(h, deterministic=key is None, rngs=key)
    x = resample(x)
    x = x if self.skip is None else self.skip(x)
    x = (x + self.conv_2(h)) / math.sqrt(2)
    if self.attention is not None:
      x = (x + self.attention(x)) / math.sqrt(2)
    return x
