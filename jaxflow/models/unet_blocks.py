"""Blocks of U-Nets: residual convolutions, resampling, attention.

A block computes, with e the embedding of times and label,

  h = conv(silu(norm(r(x)))) + linear(e)                                  (1)
  y = (skip(r(x)) + conv(drop(silu(norm(h))))) / sqrt2                    (2)
  z = (y + linear(attention(norm(y)))) / sqrt2                            (3)

where r halves or doubles the sides, or does nothing, and acts behind the first
norm and its SiLU; (3) is there where a block attends. The last linear map of
each branch starts at zero, so at first a block only resamples and rescales.

This is DDPM++. As `Parts` say, r may be smooth, the sums may not be divided,
heads may be many, and norm(h) may be scaled and shifted in (2),
norm(h) (1 + a) + b, by the linear map of e, in place of the sum in (1).

References:
  Song et al., 2021, arXiv:2011.13456, appendix H: DDPM++.
  Karras et al., 2022, arXiv:2206.00364, table 7: the same network in their
  notation; its initial values are these up to the zeros, 1e-5 times a uniform
  law there.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxflow.models import layers
from jaxflow.models.attention import attention
from jaxflow.models.layers import TokenLinear
from jaxflow.models.unet_layout import Layer
from jaxflow.models.unet_parts import Parts
from jaxflow.types import Array

_xavier = nnx.initializers.xavier_uniform()
_zeros = nnx.initializers.zeros


def group_norm(
  width: int, dtype: Any, rngs: nnx.Rngs, *, epsilon: float = 1e-6
) -> nnx.GroupNorm:
  """Make a group norm of up to 32 groups.

  A group has four channels or more, as published; where these do not divide
  the channels, there are fewer groups.
  """
  most = min(32, width // 4)
  groups = next(n for n in range(most, 0, -1) if width % n == 0)
  return layers.group_norm(width, groups, dtype, rngs, epsilon=epsilon)


def convolution(
  before: int,
  width: int,
  dtype: Any,
  rngs: nnx.Rngs,
  *,
  init: Callable[..., Any] = _zeros,
  padding: Any = "SAME",
) -> nnx.Conv:
  """Make a 3 x 3 convolution that keeps the sides."""
  return nnx.Conv(
    before,
    width,
    (3, 3),
    kernel_init=init,
    padding=padding,
    dtype=dtype,
    rngs=rngs,
  )


def halve(x: Array) -> Array:
  """Average every 2 x 2 pixels of images [B, H, W, C]."""
  batch, height, width, channels = x.shape
  squares = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
  return squares.mean((2, 4))


def double(x: Array) -> Array:
  """Repeat every pixel of images [B, H, W, C] as 2 x 2 pixels."""
  return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def smooth_halve(x: Array, *, around: int = 1) -> Array:
  """Filter images [B, H, W, C] by 1, 3, 3, 1 a side; keep every second pixel.

  There are `around` zeros at each border.
  """
  for axis in (1, 2):
    zeros = [(0, 0)] * x.ndim
    zeros[axis] = around, around
    x = jnp.pad(x, zeros)
    end = x.shape[axis] - len(_TAPS) + 1
    taken = [
      jax.lax.slice_in_dim(x, i, end + i, 2, axis) * (tap / 8)
      for i, tap in enumerate(_TAPS)
    ]
    x = functools.reduce(jnp.add, taken)
  return x


def smooth_double(x: Array) -> Array:
  """Put zeros between the pixels of images; filter them by 1, 3, 3, 1."""
  for axis in (1, 2):
    zeros = [(0, 0)] * x.ndim
    zeros[axis] = 1, 1
    wide, size = jnp.pad(x, zeros), x.shape[axis]
    before = jax.lax.slice_in_dim(wide, 0, size, axis=axis)
    after = jax.lax.slice_in_dim(wide, 2, size + 2, axis=axis)
    pairs = jnp.stack([before + 3 * x, 3 * x + after], axis + 1) / 4
    x = pairs.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])
  return x


_TAPS = (1, 3, 3, 1)
# Changes of the sides of images, by their name and whether they are smooth.
RESAMPLE: dict[tuple[str, bool], Callable[[Array], Array]] = {
  ("keep", False): lambda x: x,
  ("keep", True): lambda x: x,
  ("halve", False): halve,
  ("double", False): double,
  ("halve", True): smooth_halve,
  ("double", True): smooth_double,
}


class Embedder(nnx.Module):
  """Maps features of a time [B, features] to vectors [B, width], float32."""

  def __init__(
    self,
    features: int,
    width: int,
    *,
    rngs: nnx.Rngs,
    init: Callable[..., Any] = _xavier,
  ):
    self.hidden: nnx.Linear = nnx.Linear(
      features, width, kernel_init=init, rngs=rngs
    )
    self.output: nnx.Linear = nnx.Linear(
      width, width, kernel_init=init, rngs=rngs
    )

  def __call__(self, features: Array) -> Array:
    """Return the vectors."""
    return self.output(jax.nn.silu(self.hidden(features)))


class SelfAttention(nnx.Module):
  """Attention among the pixels of an image."""

  def __init__(self, width: int, *, parts: Parts, dtype: Any, rngs: nnx.Rngs):
    options = {"dtype": dtype, "rngs": rngs}
    self.features: int = parts.head_features or width
    self.norm: nnx.GroupNorm = group_norm(
      width, dtype, rngs, epsilon=parts.epsilon
    )
    self.qkv: TokenLinear = TokenLinear(
      width, 3 * width, kernel_init=parts.attention_init, **options
    )
    self.output: TokenLinear = TokenLinear(
      width, width, kernel_init=_zeros, **options
    )

  def __call__(self, x: Array) -> Array:
    """Return the residual [B, H, W, width] of images."""
    batch, height, breadth, width = x.shape
    qkv = self.qkv(self.norm(x)).reshape(
      batch, height * breadth, 3, width // self.features, self.features
    )
    attended = attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
    return self.output(attended.reshape(x.shape))


class UNetBlock(nnx.Module):
  """One block of the U-Net, eq. (1)-(3)."""

  def __init__(
    self,
    layer: Layer,
    embedding: int,
    *,
    parts: Parts,
    dropout: float,
    dtype: Any,
    rngs: nnx.Rngs,
  ):
    before, width = layer.before, layer.width
    linear = {"kernel_init": parts.init, "dtype": dtype, "rngs": rngs}
    epsilon = parts.epsilon
    self.resample = layer.resample, parts.smooth
    self.scale_shift = parts.scale_shift
    self.divisor: float = math.sqrt(2) if parts.rescale else 1
    self.norm_1: nnx.GroupNorm = group_norm(
      before, dtype, rngs, epsilon=epsilon
    )
    self.conv_1: nnx.Conv = convolution(
      before, width, dtype, rngs, init=parts.init
    )
    self.embedding: nnx.Linear = nnx.Linear(
      embedding, width * (1 + parts.scale_shift), **linear
    )
    self.norm_2: nnx.GroupNorm = group_norm(width, dtype, rngs, epsilon=epsilon)
    self.conv_2: nnx.Conv = convolution(width, width, dtype, rngs)
    changes = parts.project and layer.resample != "keep"
    self.skip = (
      TokenLinear(before, width, **linear)
      if before != width or changes
      else None
    )
    self.attention = (
      SelfAttention(width, parts=parts, dtype=dtype, rngs=rngs)
      if layer.attention
      else None
    )
    self.dropout: nnx.Dropout = nnx.Dropout(dropout)

  def __call__(self, x: Array, embedding: Array, key: Array | None) -> Array:
    """Return images [B, H', W', width] of [B, H, W, before], in their type.

    The embedding [B, embedding] is that of times and label. A key drops units;
    None drops none.
    """
    resample = RESAMPLE[self.resample]
    h = self.conv_1(resample(jax.nn.silu(self.norm_1(x))))
    e = self.embedding(embedding)[:, None, None, :]
    if self.scale_shift:
      scale, shift = jnp.split(e, 2, axis=-1)
      h = self.norm_2(h) * (1 + scale) + shift
    else:
      h = self.norm_2(h + e)
    h = jax.nn.silu(h)
    h = self.dropout(h, deterministic=key is None, rngs=key)
    x = resample(x)
    x = x if self.skip is None else self.skip(x)
    x = (x + self.conv_2(h)) / self.divisor
    if self.attention is not None:
      x = (x + self.attention(x)) / self.divisor
    return x
