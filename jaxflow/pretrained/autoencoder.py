"""Stable Diffusion's autoencoder: images to latents of 1/8 of the size.

A latent is normal, with a mean and a deviation for every value. The encoder
gives mean and log-variance, which a 1 x 1 convolution mixes; the decoder makes
an image of a latent, mixed by another one.

References:
  Rombach et al. 2021 (arXiv:2112.10752).
  Kingma, Welling 2013 (arXiv:1312.6114).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxflow.errors import UsageError
from jaxflow.models.network import compute_dtype, init_and_module
from jaxflow.pretrained.autoencoder_parts import GROUPS, Decoder, Encoder
from jaxflow.types import Array, PyTree

# The parameters of either half.
ENCODER = ("encoder", "quant_conv")
DECODER = ("post_quant_conv", "decoder")

# Between these the log-variance is clipped, as published: a deviation is finite
# whatever the encoder says.
_LOG_VARIANCE = (-30.0, 20.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Autoencoder:
  """Three pure functions, and the size of latents.

  Attributes:
    init: `init(key) -> params`, a nested dict of float32 arrays with the parts
      "encoder", "quant_conv", "post_quant_conv", "decoder".
    encode: `encode(params, images) -> (mean, std)`; images [B, H, W, 3] in
      [-1, 1], mean and std [B, H / factor, W / factor, channels]. Reads the
      first two parts.
    decode: `decode(params, latents) -> images`. Reads the last two parts.
    shapes: The shapes of `params`.
    factor: How many times smaller a latent is.
    channels: Channels of a latent.
  """

  init: Callable[[Array], PyTree]
  encode: Callable[[PyTree, Array], tuple[Array, Array]]
  decode: Callable[[PyTree, Array], Array]
  shapes: PyTree
  factor: int
  channels: int


class _Encoding(nnx.Module):
  """The half that makes latents."""

  def __init__(self, rngs: nnx.Rngs, **options: Any):
    size, dtype = 2 * options["latent_channels"], options["dtype"]
    self.encoder = Encoder(rngs=rngs, **options)
    self.quant_conv = nnx.Conv(size, size, (1, 1), dtype=dtype, rngs=rngs)

  def __call__(self, images: Array) -> tuple[Array, Array]:
    moments = self.quant_conv(self.encoder(images)).astype(jnp.float32)
    mean, log_variance = jnp.split(moments, 2, axis=-1)
    return mean, jnp.exp(0.5 * jnp.clip(log_variance, *_LOG_VARIANCE))


class _Decoding(nnx.Module):
  """The half that makes images."""

  def __init__(self, rngs: nnx.Rngs, **options: Any):
    size, dtype = options["latent_channels"], options["dtype"]
    self.post_quant_conv = nnx.Conv(size, size, (1, 1), dtype=dtype, rngs=rngs)
    self.decoder = Decoder(rngs=rngs, **options)

  def __call__(self, latents: Array) -> Array:
    return self.decoder(self.post_quant_conv(latents)).astype(jnp.float32)


def autoencoder(
  *,
  width: int = 128,
  multipliers: tuple[int, ...] = (1, 2, 4, 4),
  layers: int = 2,
  latent_channels: int = 4,
  dtype: str = "float32",
) -> Autoencoder:
  """Make an autoencoder; by default that of Stable Diffusion 1.

  Nothing is allocated before its `init` is called.

  Args:
    width: Channels at full size, a multiple of 32.
    multipliers: Channels of each level, in widths; every level but the last
      halves the image.
    layers: Residual blocks a level of the encoder; the decoder has one more.
    latent_channels: Channels of a latent.
    dtype: "float32" or "bfloat16", the type of the arithmetic.
  """
  if width < 1 or width % GROUPS:
    raise UsageError(f"width={width}: give a multiple of {GROUPS}")
  if not multipliers or min(multipliers) < 1:
    raise UsageError(f"multipliers={multipliers}: give positive numbers")
  for name, value in (("layers", layers), ("latent_channels", latent_channels)):
    if value < 1:
      raise UsageError(f"{name}={value}: give at least 1")
  options = {
    "widths": tuple(width * multiplier for multiplier in multipliers),
    "layers": layers,
    "latent_channels": latent_channels,
    "dtype": compute_dtype(dtype),
  }
  factor = 2 ** (len(multipliers) - 1)
  init_encoder, encoder = init_and_module(lambda r: _Encoding(r, **options))
  init_decoder, decoder = init_and_module(lambda r: _Decoding(r, **options))

  def init(key: Array) -> PyTree:
    first, second = jax.random.split(key)
    return init_encoder(first) | init_decoder(second)

  def encode(params: PyTree, images: Array) -> tuple[Array, Array]:
    height, side, channels = images.shape[1:]
    if channels != 3 or height % factor or side % factor:
      raise UsageError(
        f"images of shape {images.shape[1:]}: give (height, width, 3), both "
        f"multiples of {factor}"
      )
    return encoder({name: params[name] for name in ENCODER})(images)

  def decode(params: PyTree, latents: Array) -> Array:
    return decoder({name: params[name] for name in DECODER})(latents)

  return Autoencoder(
    init=init,
    encode=encode,
    decode=decode,
    shapes=jax.eval_shape(init, jax.random.key(0)),
    factor=factor,
    channels=latent_channels,
  )
