"""EDM2's U-Net, whose layers preserve the magnitude of what they are given.

The magnitude of a vector is the root of its mean square. With

  n(x) = x / (1e-4 + |x|)                                                 (1)
  mp_silu(x) = silu(x) / 0.596                                            (2)
  mp_sum(a, b, u) = ((1 - u) a + u b) / sqrt((1 - u)^2 + u^2)             (3)

|x| the magnitude, every linear map and convolution has the kernel n(w) of each
output over the root of its number of inputs, and no bias. A block computes

  x' = n(skip(r(x)))  in the encoder, over channels;  r(x)  in the decoder
  y  = conv(mp_silu(conv(mp_silu(x')) (1 + gain linear(e))))              (4)
  z  = mp_sum(x', y, 0.3), in the decoder with skip(x') in place of x'    (5)

and, where it attends, mp_sum(z, linear(attention of n(q), n(k), n(v)), 0.3).
Gains start at zero. Training puts n(w) in place of w behind each update, the
published forced weight normalisation (section 2.3, eq. 66). The output does not
depend on it, but the effective step size does: it would fall while w grows.

References:
  Karras et al., 2024, arXiv:2312.02696, eq. 47, 66, 75, 81, 88, 103, figure 21.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxflow.errors import UsageError
from jaxflow.models import checks
from jaxflow.models.attention import attention
from jaxflow.models.embeddings import (
  GuidanceEmbedder,
  LabelEmbedder,
  VectorEmbedder,
  label_embedder,
)
from jaxflow.models.network import Network, compute_dtype, functional
from jaxflow.models.unet_blocks import double, halve
from jaxflow.models.unet_layout import Layer, check_levels, layers, steps
from jaxflow.models.unet_walk import ImageUNet
from jaxflow.options import BelowOne, Count, Layers, Natural
from jaxflow.types import Array, PyTree

_BALANCE = 0.3
_CLIP = 256.0
_HEAD = 64
_RESAMPLE = {"keep": lambda x: x, "halve": halve, "double": double}


def normalize(x: Array, axis: int | tuple[int, ...]) -> Array:
  """Scale an array to magnitude 1 along axes, eq. (1)."""
  square = jnp.mean(jnp.square(x.astype(jnp.float32)), axis, keepdims=True)
  # Its root has no derivative at 0, where the sum below is 1e-4.
  zero = square == 0
  root = jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, square)))
  return x / (1e-4 + root).astype(x.dtype)


def mp_silu(x: Array) -> Array:
  """Compute eq. (2)."""
  return jax.nn.silu(x) / 0.596


def mp_sum(a: Array, b: Array, share: float) -> Array:
  """Compute eq. (3)."""
  return ((1 - share) * a + share * b) / math.hypot(1 - share, share)


def mp_concatenate(a: Array, b: Array) -> Array:
  """Concatenate channels so that both count alike, whatever their number."""
  total = math.sqrt((a.shape[-1] + b.shape[-1]) / 2)
  parts = (x * (total / math.sqrt(x.shape[-1])) for x in (a, b))
  return jnp.concatenate(list(parts), axis=-1)


def forced(params: PyTree) -> PyTree:
  """Return a network's parameters with n(w) for the weights of linear maps.

  Layers of the guidance, which are no such maps, stay, and so do gains and
  waves.
  """

  def unit(path: tuple, x: Array) -> Array:
    if path[0].key == "guidance" or path[-1].key not in ("kernel", "table"):
      return x
    return normalize(x, tuple(range(x.ndim - 1)))

  return jax.tree_util.tree_map_with_path(unit, params)


class MPLinear(nnx.Module):
  """A linear map [in, out], or a convolution [h, w, in, out], of n(w)."""

  def __init__(self, shape: tuple[int, ...], rngs: nnx.Rngs):
    self.kernel: nnx.Param[Any] = nnx.Param(
      jax.random.normal(rngs.params(), shape)
    )

  def __call__(self, x: Array, gain: Array | float = 1.0) -> Array:
    """Return [..., out]; `gain` is a factor on it."""
    kernel = self.kernel[...]
    inputs = tuple(range(kernel.ndim - 1))
    scale = gain / math.sqrt(kernel[..., 0].size)
    kernel = (normalize(kernel, inputs) * scale).astype(x.dtype)
    if kernel.ndim == 2:
      return x @ kernel
    return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


class Waves(nnx.Module):
  """Cosines of times at random frequencies and phases, never trained."""

  def __init__(self, features: int, rngs: nnx.Rngs):
    turns = 2 * math.pi
    self.frequencies: nnx.Param[Any] = nnx.Param(
      turns * jax.random.normal(rngs.params(), (features,))
    )
    self.phases: nnx.Param[Any] = nnx.Param(
      turns * jax.random.uniform(rngs.params(), (features,))
    )

  def __call__(self, t: Array) -> Array:
    """Return [B, features] of magnitude 1, float32."""
    steps = jax.lax.stop_gradient(self.frequencies[...])
    phases = jax.lax.stop_gradient(self.phases[...])
    return math.sqrt(2) * jnp.cos(t[:, None] * steps[None] + phases[None])


class Labels(LabelEmbedder):
  """Embeds labels by a table of n(w); the null label is the zero vector."""

  def __init__(self, num_classes: int, width: int, *, rngs: nnx.Rngs):
    self.num_classes = num_classes
    self.table: nnx.Param[Any] = nnx.Param(
      jax.random.normal(rngs.params(), (num_classes, width))
    )

  def rows(self) -> Array:
    """Return the vectors of all labels."""
    return jnp.pad(normalize(self.table[...], 0), ((0, 1), (0, 0)))


class Vectors(VectorEmbedder):
  """Embeds vectors by a map of n(w); none has the zero vector.

  Vectors of unit variance, as data have them, keep their magnitude.
  """

  def __init__(self, size: int, width: int, *, rngs: nnx.Rngs):
    self.size = size
    self.width = width
    self.linear: Any = MPLinear((size, width), rngs)

  def nothing(self) -> Array:
    """Return the embedding [width] of no vector."""
    return jnp.zeros(self.width)


class Gain(nnx.Module):
  """A factor that starts at zero."""

  def __init__(self):
    self.gain: nnx.Param[Any] = nnx.Param(jnp.zeros(()))


class Interval(nnx.Module):
  """Embeds t - s; at first as nothing."""

  def __init__(self, features: int, width: int, rngs: nnx.Rngs):
    self.hidden: MPLinear = MPLinear((features, width), rngs)
    self.output: Gain = Gain()

  def __call__(self, waves: Array) -> Array:
    """Return the embedding [B, width] of waves of t - s."""
    return self.hidden(waves, self.output.gain[...])


class MPAttention(nnx.Module):
  """Attention of queries, keys and values of magnitude 1."""

  def __init__(self, width: int, rngs: nnx.Rngs):
    self.qkv: MPLinear = MPLinear((width, 3 * width), rngs)
    self.output: MPLinear = MPLinear((width, width), rngs)

  def __call__(self, x: Array) -> Array:
    """Return images [B, H, W, width]."""
    batch, height, breadth, width = x.shape
    heads = (batch, height * breadth, 3, width // _HEAD, _HEAD)
    qkv = normalize(self.qkv(x).reshape(heads), -1)
    attended = attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
    return self.output(attended.reshape(x.shape))


class MPBlock(nnx.Module):
  """One block, eq. (4)-(5)."""

  def __init__(
    self,
    layer: Layer,
    embedding: int,
    *,
    encodes: bool,
    dropout: float,
    rngs: nnx.Rngs,
  ):
    before, width = layer.before, layer.width
    self.resample = layer.resample
    self.encodes = encodes
    self.gain: nnx.Param[Any] = nnx.Param(jnp.zeros(()))
    self.conv_1: MPLinear = MPLinear(
      (3, 3, width if encodes else before, width), rngs
    )
    self.embedding: MPLinear = MPLinear((embedding, width), rngs)
    self.conv_2: MPLinear = MPLinear((3, 3, width, width), rngs)
    self.skip = MPLinear((before, width), rngs) if before != width else None
    self.attention = MPAttention(width, rngs) if layer.attention else None
    self.dropout: nnx.Dropout = nnx.Dropout(dropout)

  def __call__(self, x: Array, e: Array, key: Array | None) -> Array:
    """Return images [B, H', W', width] of [B, H, W, before], in their type."""
    x = _RESAMPLE[self.resample](x)
    if self.encodes:
      x = normalize(x if self.skip is None else self.skip(x), -1)
    y = self.conv_1(mp_silu(x))
    y = mp_silu(y * (1 + self.embedding(e, self.gain[...])[:, None, None, :]))
    y = self.conv_2(self.dropout(y, deterministic=key is None, rngs=key))
    if not self.encodes and self.skip is not None:
      x = self.skip(x)
    x = mp_sum(x, y, _BALANCE)
    if self.attention is not None:
      x = mp_sum(x, self.attention(x), _BALANCE)
    return jnp.clip(x, -_CLIP, _CLIP)


class MPUNet(ImageUNet):
  """A U-Net over images [B, H, W, C]."""

  def __init__(
    self,
    *,
    data_shape: tuple[int, ...],
    channels: int,
    multipliers: tuple[int, ...],
    num_blocks: int,
    attention_resolutions: tuple[int, ...],
    num_classes: int,
    cond_size: int,
    second_time: bool,
    guidance_inputs: bool,
    heads: int,
    dropout: float,
    dtype: Any,
    rngs: nnx.Rngs,
  ):
    super().__init__(data_shape, heads, dtype)
    embedding = channels * max(multipliers)
    self.waves: Waves = Waves(channels, rngs)
    self.time: MPLinear = MPLinear((channels, embedding), rngs)
    self.interval = Interval(channels, embedding, rngs) if second_time else None
    self.label = label_embedder(
      num_classes,
      cond_size,
      embedding,
      classes=Labels,
      vectors=Vectors,
      rngs=rngs,
    )
    self.guidance = (
      GuidanceEmbedder(embedding, scale=1.0, rngs=rngs)
      if guidance_inputs
      else None
    )
    encoder, decoder = layers(
      data_shape[0],
      channels,
      multipliers,
      num_blocks,
      attention_resolutions,
      attends_late=False,
    )
    # One more channel, of ones, stands for a bias.
    self.input: MPLinear = MPLinear((3, 3, data_shape[2] + 1, channels), rngs)
    for name, part in (("encoder", encoder), ("decoder", decoder)):
      for i, layer in enumerate(part):
        block = MPBlock(
          layer,
          embedding,
          encodes=name == "encoder",
          dropout=dropout,
          rngs=rngs,
        )
        setattr(self, f"{name}_{i}", block)
    self.walks(*steps(encoder, decoder))
    self.output: MPLinear = MPLinear(
      (3, 3, decoder[-1].width, heads * data_shape[2]), rngs
    )
    self.gain: nnx.Param[Any] = nnx.Param(jnp.zeros(()))

  def _first(self, image: Array) -> Array:
    ones = jnp.ones_like(image[..., :1])
    return self.input(jnp.concatenate([image, ones], axis=-1))

  def _last(self, x: Array) -> Array:
    return self.output(x, self.gain[...])

  def _join(self, x: Array, skip: Array) -> Array:
    return mp_concatenate(x, skip)

  def _embedding(self, t: Array, s: Array, cond: PyTree) -> Array:
    t = t.astype(jnp.float32)
    e = self.time(self.waves(t))
    if self.interval is not None:
      e = e + self.interval(self.waves(t - s.astype(jnp.float32)))
    if self.label is not None:
      e = mp_sum(e, self.label(cond, t.shape[0]), 0.5)
    if self.guidance is not None:
      e = e + self.guidance(cond)
    return mp_silu(e)


def mp_unet(
  *,
  data_shape: tuple[int, int, int],
  channels: Count = 128,
  multipliers: tuple[int, ...] = (1, 2, 3, 4),
  num_blocks: Layers = 3,
  attention_resolutions: tuple[int, ...] = (16, 8),
  num_classes: Natural = 0,
  cond_size: Natural = 0,
  second_time: bool = True,
  guidance_inputs: bool = False,
  heads: Count = 1,
  dropout: BelowOne = 0.0,
  dtype: str = "float32",
) -> Network:
  """Make EDM2's U-Net for images [B, H, W, C]; by default its size XS.

  Parameters, times, their embeddings, magnitudes and the output are float32
  whatever `dtype` is.

  Args:
    data_shape: Shape (H, W, C) of one image.
    channels: Channels of the first layer, and waves of a time: 128, 192, 256,
      320, 384, 448 for XS, S, M, L, XL, XXL.
    multipliers: Factors on `channels`, one a level; from one level to the next
      the sides halve.
    num_blocks: Blocks of the encoder at each level; the decoder has one more.
    attention_resolutions: Heights at which blocks attend, of those that there
      are; whatever they are, one block between encoder and decoder does.
    num_classes: Number of labels; 0 makes the network ignore `cond`. The null
      label is `num_classes`; cond None stands for it.
    cond_size: Numbers of a label that is a vector, 0 without: `cond` is then
      [B, cond_size], and NaN stands for none.
    second_time: Whether the network sees t - s, or ignores `s`.
    guidance_inputs: Whether the network sees `omega`, `t_start` and `t_end` of
      `cond`, a dict then.
    heads: Number of predictions; more than one make a tuple.
    dropout: Share of every block's hidden units dropped when a key is given.
    dtype: "float32" or "bfloat16", the type of the blocks' arithmetic.

  Raises:
    UsageError: If an option has an impossible value.

  Example:
    >>> network = mp_unet(
    ...     data_shape=(4, 4, 1), channels=64, multipliers=(1,), num_blocks=1,
    ...     attention_resolutions=())
    >>> params = jax.eval_shape(network.init, jax.random.key(0))
    >>> xt, t = jnp.ones((3, 4, 4, 1)), jnp.ones(3)
    >>> jax.eval_shape(network.apply, params, xt, t, t, None).shape
    (3, 4, 4, 1)
  """
  checks.at_least(1, num_blocks=num_blocks)
  checks.image_network(
    data_shape=data_shape,
    num_classes=num_classes,
    cond_size=cond_size,
    heads=heads,
    dropout=dropout,
  )
  check_levels(data_shape, channels, multipliers, attention_resolutions)
  if any(channels * factor % _HEAD for factor in multipliers):
    raise UsageError(
      f"channels={channels}, multipliers={tuple(multipliers)}: give products "
      f"that {_HEAD} divides, the features of a head"
    )
  compute = compute_dtype(dtype)
  network = functional(
    lambda rngs: MPUNet(
      data_shape=tuple(data_shape),
      channels=channels,
      multipliers=tuple(multipliers),
      num_blocks=num_blocks,
      attention_resolutions=tuple(attention_resolutions),
      num_classes=num_classes,
      cond_size=cond_size,
      second_time=second_time,
      guidance_inputs=guidance_inputs,
      heads=heads,
      dropout=dropout,
      dtype=compute,
      rngs=rngs,
    )
  )
  return dataclasses.replace(network, project=forced)
