"""The encoder and the decoder of Stable Diffusion's autoencoder.

Modules are named as the published tensors are, with `_0` for `.0`, so that a
name in a file follows from a place in the tree of parameters.

References:
  Rombach et al. 2021 (arXiv:2112.10752), appendix G: autoencoders of factor 8
  with KL regularisation.
  Esser et al. 2020 (arXiv:2012.09841), table 7: blocks of the two networks.
"""

from typing import Any

import jax
from flax import nnx

from jaxflow.models.attention import attention
from jaxflow.models.layers import group_norm
from jaxflow.types import Array

# Groups of every group norm; they divide every width.
GROUPS = 32


class Residual(nnx.Module):
  """Two normalised 3 x 3 convolutions beside an identity or a 1 x 1 one."""

  def __init__(self, before: int, width: int, dtype: Any, rngs: nnx.Rngs):
    self.norm1: nnx.GroupNorm = _norm(before, dtype, rngs)
    self.conv1: nnx.Conv = _conv(before, width, 3, dtype, rngs)
    self.norm2: nnx.GroupNorm = _norm(width, dtype, rngs)
    self.conv2: nnx.Conv = _conv(width, width, 3, dtype, rngs)
    if before != width:
      self.conv_shortcut: nnx.Conv = _conv(before, width, 1, dtype, rngs)

  def __call__(self, x: Array) -> Array:
    """Return [B, H, W, width]."""
    hidden = self.conv1(jax.nn.silu(self.norm1(x)))
    hidden = self.conv2(jax.nn.silu(self.norm2(hidden)))
    shortcut = getattr(self, "conv_shortcut", None)
    return hidden + (x if shortcut is None else shortcut(x))


class Attention(nnx.Module):
  """Self-attention of all pixels in one head, with a residual."""

  def __init__(self, width: int, dtype: Any, rngs: nnx.Rngs):
    self.group_norm: nnx.GroupNorm = _norm(width, dtype, rngs)
    self.to_q, self.to_k, self.to_v, self.to_out_0 = (
      nnx.Linear(width, width, dtype=dtype, rngs=rngs) for _ in range(4)
    )

  def __call__(self, x: Array) -> Array:
    """Return [B, H, W, width]."""
    batch, height, width, channels = x.shape
    tokens = self.group_norm(x).reshape(batch, height * width, 1, channels)
    attended = attention(
      *(linear(tokens) for linear in (self.to_q, self.to_k, self.to_v))
    )
    return x + self.to_out_0(attended).reshape(x.shape)


class Middle(nnx.Module):
  """A residual block, attention, a residual block."""

  def __init__(self, width: int, dtype: Any, rngs: nnx.Rngs):
    self.resnets_0: Residual = Residual(width, width, dtype, rngs)
    self.attentions_0: Attention = Attention(width, dtype, rngs)
    self.resnets_1: Residual = Residual(width, width, dtype, rngs)

  def __call__(self, x: Array) -> Array:
    """Return [B, H, W, width]."""
    return self.resnets_1(self.attentions_0(self.resnets_0(x)))


class Resampling(nnx.Module):
  """A 3 x 3 convolution that halves an image, or follows its doubling."""

  def __init__(self, width: int, down: bool, dtype: Any, rngs: nnx.Rngs):
    self.down = down
    # A pixel below and to the right, none above and to the left.
    halving = {"strides": 2, "padding": ((0, 1), (0, 1))} if down else {}
    self.conv: nnx.Conv = _conv(width, width, 3, dtype, rngs, **halving)

  def __call__(self, x: Array) -> Array:
    """Return [B, H / 2, W / 2, width] or [B, 2 H, 2 W, width]."""
    if not self.down:
      x = x.repeat(2, axis=1).repeat(2, axis=2)
    return self.conv(x)


class Level(nnx.Module):
  """Residual blocks of one width, then a change of size or none."""

  def __init__(
    self,
    before: int,
    width: int,
    layers: int,
    resampling: str | None,
    dtype: Any,
    rngs: nnx.Rngs,
  ):
    self.layers = layers
    self.resampling = resampling
    for i in range(layers):
      block = Residual(width if i else before, width, dtype, rngs)
      setattr(self, f"resnets_{i}", block)
    if resampling is not None:
      down = resampling == "downsamplers_0"
      setattr(self, resampling, Resampling(width, down, dtype, rngs))

  def __call__(self, x: Array) -> Array:
    """Return [B, h, w, width]."""
    for i in range(self.layers):
      x = getattr(self, f"resnets_{i}")(x)
    return x if self.resampling is None else getattr(self, self.resampling)(x)


class Encoder(nnx.Module):
  """Images [B, H, W, 3] to the moments [B, h, w, 2 C] of their latents."""

  def __init__(
    self,
    widths: tuple[int, ...],
    layers: int,
    latent_channels: int,
    dtype: Any,
    rngs: nnx.Rngs,
  ):
    self.levels: int = len(widths)
    self.conv_in: nnx.Conv = _conv(3, widths[0], 3, dtype, rngs)
    before = widths[0]
    for i, width in enumerate(widths):
      half = "downsamplers_0" if i < self.levels - 1 else None
      level = Level(before, width, layers, half, dtype, rngs)
      setattr(self, f"down_blocks_{i}", level)
      before = width
    self.mid_block: Middle = Middle(before, dtype, rngs)
    self.conv_norm_out: nnx.GroupNorm = _norm(before, dtype, rngs)
    self.conv_out: nnx.Conv = _conv(before, 2 * latent_channels, 3, dtype, rngs)

  def __call__(self, images: Array) -> Array:
    """Return mean and log-variance, one after the other."""
    x = self.conv_in(images)
    for i in range(self.levels):
      x = getattr(self, f"down_blocks_{i}")(x)
    x = self.conv_norm_out(self.mid_block(x))
    return self.conv_out(jax.nn.silu(x))


class Decoder(nnx.Module):
  """Latents [B, h, w, C] to images [B, H, W, 3]."""

  def __init__(
    self,
    widths: tuple[int, ...],
    layers: int,
    latent_channels: int,
    dtype: Any,
    rngs: nnx.Rngs,
  ):
    self.levels: int = len(widths)
    before = widths[-1]
    self.conv_in: nnx.Conv = _conv(latent_channels, before, 3, dtype, rngs)
    self.mid_block: Middle = Middle(before, dtype, rngs)
    for i, width in enumerate(reversed(widths)):
      double = "upsamplers_0" if i < self.levels - 1 else None
      level = Level(before, width, layers + 1, double, dtype, rngs)
      setattr(self, f"up_blocks_{i}", level)
      before = width
    self.conv_norm_out: nnx.GroupNorm = _norm(before, dtype, rngs)
    self.conv_out: nnx.Conv = _conv(before, 3, 3, dtype, rngs)

  def __call__(self, latents: Array) -> Array:
    """Return the images."""
    x = self.mid_block(self.conv_in(latents))
    for i in range(self.levels):
      x = getattr(self, f"up_blocks_{i}")(x)
    return self.conv_out(jax.nn.silu(self.conv_norm_out(x)))


def _norm(width: int, dtype: Any, rngs: nnx.Rngs) -> nnx.GroupNorm:
  return group_norm(width, GROUPS, dtype, rngs)


def _conv(
  before: int, width: int, size: int, dtype: Any, rngs: nnx.Rngs, **options: Any
) -> nnx.Conv:
  return nnx.Conv(
    before, width, (size, size), dtype=dtype, rngs=rngs, **options
  )
