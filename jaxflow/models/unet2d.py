"""The U-Net of DDPM as the diffusers library has it, `UNet2DModel`.

Every level of the encoder has residual blocks of one width and, but the last, a
convolution that halves the sides; the decoder mirrors it with one block more a
level, each of which sees the output of one layer of the encoder. Modules are
named as published tensors are, with `_0` for `.0`. A residual block computes,
with e the embedding of times and label,

  h = conv1(silu(norm1(x))) + linear(silu(e))                             (1)
  y = shortcut(x) + conv2(drop(silu(norm2(h))))                           (2)

or, with `scale_shift`, norm2(h) (1 + a) + b in place of the sum in (1), where
the linear map gives a and b. `unet` is the network of Song et al. and Karras
et al., with other blocks.

References:
  Ho et al. 2020 (arXiv:2006.11239), appendix B.
  Geng et al. 2025 (arXiv:2505.13447): the second time embedding.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxflow.errors import UsageError
from jaxflow.models import checks
from jaxflow.models.attention import attention
from jaxflow.models.embeddings import (
  GuidanceEmbedder,
  label_embedder,
  sinusoidal,
)
from jaxflow.models.layers import TokenLinear, group_norm
from jaxflow.models.network import Network, compute_dtype, functional
from jaxflow.models.unet_blocks import Embedder, double
from jaxflow.models.unet_walk import ImageUNet, Keys, Step
from jaxflow.options import BelowOne, Count, Finite, Layers, Natural, Positive
from jaxflow.types import Array, PyTree

Options = dict[str, Any]


class Residual(nnx.Module):
  """One residual block, eq. (1)-(2)."""

  def __init__(self, before: int, width: int, options: Options):
    shift = options["scale_shift"]
    layer = {"dtype": options["dtype"], "rngs": options["rngs"]}
    self.scale_shift = shift
    self.norm1: nnx.GroupNorm = _norm(before, options)
    self.conv1: nnx.Conv = nnx.Conv(before, width, (3, 3), **layer)
    self.time_emb_proj: nnx.Linear = nnx.Linear(
      options["embedding"], width * (1 + shift), **layer
    )
    self.norm2: nnx.GroupNorm = _norm(width, options)
    self.conv2: nnx.Conv = nnx.Conv(width, width, (3, 3), **layer)
    self.conv_shortcut = (
      TokenLinear(before, width, **layer) if before != width else None
    )
    self.dropout: nnx.Dropout = nnx.Dropout(options["dropout"])

  def __call__(self, x: Array, embedding: Array, key: Array | None) -> Array:
    """Return images [B, H, W, width] of [B, H, W, before]."""
    h = self.conv1(jax.nn.silu(self.norm1(x)))
    e = self.time_emb_proj(embedding)[:, None, None, :]
    if self.scale_shift:
      scale, shift = jnp.split(e, 2, axis=-1)
      h = self.norm2(h) * (1 + scale) + shift
    else:
      h = self.norm2(h + e)
    h = jax.nn.silu(h)
    h = self.conv2(self.dropout(h, deterministic=key is None, rngs=key))
    return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class PixelAttention(nnx.Module):
  """Self-attention of all pixels, with a residual."""

  def __init__(self, width: int, options: Options):
    layer = {"dtype": options["dtype"], "rngs": options["rngs"]}
    self.features: int = options["head_features"] or width
    self.group_norm: nnx.GroupNorm = _norm(width, options)
    self.to_q: TokenLinear = TokenLinear(width, width, **layer)
    self.to_k: TokenLinear = TokenLinear(width, width, **layer)
    self.to_v: TokenLinear = TokenLinear(width, width, **layer)
    self.to_out_0: TokenLinear = TokenLinear(width, width, **layer)

  def __call__(self, x: Array) -> Array:
    """Return [B, H, W, width]."""
    batch, height, breadth, width = x.shape
    tokens = self.group_norm(x).reshape(batch, height * breadth, width)
    heads = (batch, height * breadth, -1, self.features)
    attended = attention(
      *(f(tokens).reshape(heads) for f in (self.to_q, self.to_k, self.to_v))
    )
    return x + self.to_out_0(attended.reshape(tokens.shape)).reshape(x.shape)


class Resampling(nnx.Module):
  """A convolution that halves an image, or follows its doubling."""

  def __init__(self, width: int, halves: bool, options: Options):
    self.halves = halves
    side = options["padding"], 1
    halving = {"strides": 2, "padding": (side, side)} if halves else {}
    layer = {"dtype": options["dtype"], "rngs": options["rngs"]}
    self.conv: nnx.Conv = nnx.Conv(width, width, (3, 3), **halving, **layer)

  def __call__(self, x: Array) -> Array:
    """Return [B, H / 2, W / 2, width] or [B, 2 H, 2 W, width]."""
    return self.conv(x if self.halves else double(x))


class Level(nnx.Module):
  """Residual blocks of one width, attention behind each or none."""

  def __init__(
    self,
    befores: list[int],
    width: int,
    attention: bool,
    resampling: str,
    options: Options,
  ):
    self.attention = attention
    self.resampling = resampling
    for i, before in enumerate(befores):
      setattr(self, f"resnets_{i}", Residual(before, width, options))
      if attention:
        setattr(self, f"attentions_{i}", PixelAttention(width, options))
    if resampling:
      halves = resampling == "downsamplers_0"
      setattr(self, resampling, Resampling(width, halves, options))

  def __call__(self, i: int | None, x: Array, e: Array, keys: Keys) -> Array:
    """Return the images behind block i, or those of the next level."""
    if i is None:
      return getattr(self, self.resampling)(x)
    x = getattr(self, f"resnets_{i}")(x, e, next(keys))
    return getattr(self, f"attentions_{i}")(x) if self.attention else x


class Middle(nnx.Module):
  """A residual block, attention or none, a residual block."""

  def __init__(self, width: int, attention: bool, options: Options):
    self.resnets_0: Residual = Residual(width, width, options)
    self.attentions_0 = PixelAttention(width, options) if attention else None
    self.resnets_1: Residual = Residual(width, width, options)

  def __call__(self, i: int | None, x: Array, e: Array, keys: Keys) -> Array:
    """Return [B, H, W, width]."""
    del i
    x = self.resnets_0(x, e, next(keys))
    x = x if self.attentions_0 is None else self.attentions_0(x)
    return self.resnets_1(x, e, next(keys))


class UNet2D(ImageUNet):
  """A U-Net over images [B, H, W, C]."""

  def __init__(
    self,
    *,
    data_shape: tuple[int, ...],
    widths: tuple[int, ...],
    layers: int,
    attention: tuple[int, ...],
    middle_attention: bool,
    num_classes: int,
    cond_size: int,
    second_time: bool,
    guidance_inputs: bool,
    heads: int,
    learned_variance: bool,
    waves: dict[str, float],
    time_shift: float,
    sines_first: bool,
    options: Options,
  ):
    rngs, dtype = options["rngs"], options["dtype"]
    super().__init__(data_shape, heads, dtype)
    self.features: int = widths[0]
    self.waves = tuple(waves.items())
    self.time_shift = time_shift
    self.sines_first = sines_first
    embedding = options["embedding"]
    self.conv_in: nnx.Conv = nnx.Conv(
      data_shape[2], widths[0], (3, 3), dtype=dtype, rngs=rngs
    )
    self.time_embedding: Embedder = Embedder(widths[0], embedding, rngs=rngs)
    self.interval = (
      Embedder(widths[0], embedding, rngs=rngs) if second_time else None
    )
    self.class_embedding = label_embedder(
      num_classes, cond_size, embedding, rngs=rngs
    )
    self.guidance = (
      GuidanceEmbedder(embedding, scale=waves["scale"], rngs=rngs)
      if guidance_inputs
      else None
    )
    width, skips = widths[0], [widths[0]]
    encoder, decoder = [], [Step("mid_block")]
    for i, after in enumerate(widths):
      last = i == len(widths) - 1
      befores = [width, *[after] * (layers - 1)]
      name = "" if last else "downsamplers_0"
      level = f"down_blocks_{i}"
      setattr(self, level, Level(befores, after, i in attention, name, options))
      encoder += [Step(level, j) for j in range(layers)]
      encoder += [] if last else [Step(level, shown=False)]
      skips += [after] * (layers + (not last))
      width = after
    self.mid_block: Middle = Middle(width, middle_attention, options)
    for i, after in enumerate(reversed(widths)):
      befores = [width + skips.pop()]
      befores += [after + skips.pop() for _ in range(layers)]
      last = i == len(widths) - 1
      name = "" if last else "upsamplers_0"
      attends = len(widths) - 1 - i in attention
      level = f"up_blocks_{i}"
      setattr(self, level, Level(befores, after, attends, name, options))
      decoder += [Step(level, j, joins=True) for j in range(layers + 1)]
      decoder += [] if last else [Step(level, shown=False)]
      width = after
    self.walks(encoder, decoder, keys=len(widths) * (2 * layers + 1) + 2)
    wide = {**options, "dtype": jnp.float32}
    self.conv_norm_out: nnx.GroupNorm = _norm(width, wide)
    self.conv_out: nnx.Conv = nnx.Conv(
      width,
      heads * data_shape[2] * (1 + learned_variance),
      (3, 3),
      kernel_init=nnx.initializers.zeros,
      rngs=rngs,
    )

  def _first(self, image: Array) -> Array:
    return self.conv_in(image)

  def _last(self, x: Array) -> Array:
    return self.conv_out(jax.nn.silu(self.conv_norm_out(x)))

  def _run(self, step: Step, x: Array, e: Array, keys: Keys) -> Array:
    return getattr(self, step.module)(step.block, x, e, keys)

  def _embedding(self, t: Array, s: Array, cond: PyTree) -> Array:
    t = t.astype(jnp.float32)
    e = self.time_embedding(self._features(t, self.time_shift))
    if self.interval is not None:
      e = e + self.interval(self._features(t - s.astype(jnp.float32), 0.0))
    if self.class_embedding is not None:
      e = e + self.class_embedding(cond, t.shape[0])
    if self.guidance is not None:
      e = e + self.guidance(cond)
    return jax.nn.silu(e)

  def _features(self, t: Array, shift: float) -> Array:
    waves = sinusoidal(t, self.features, shift=shift, **dict(self.waves))
    if self.sines_first:
      return jnp.roll(waves, self.features // 2, axis=-1)
    return waves


def unet2d(
  *,
  data_shape: tuple[int, int, int],
  widths: tuple[int, ...] = (128, 256, 256, 256),
  layers: Layers = 2,
  attention: tuple[int, ...] = (1,),
  middle_attention: bool = True,
  head_features: Natural = 0,
  groups: Count = 32,
  epsilon: Positive = 1e-5,
  scale_shift: bool = False,
  padding: Natural = 1,
  num_classes: Natural = 0,
  cond_size: Natural = 0,
  second_time: bool = True,
  guidance_inputs: bool = False,
  heads: Count = 1,
  learned_variance: bool = False,
  time_scale: Finite = 1.0,
  time_shift: Finite = 0.0,
  max_period: Positive = 1e4,
  sines_first: bool = False,
  dropout: BelowOne = 0.0,
  dtype: str = "float32",
) -> Network:
  """Make the U-Net of the diffusers library for images [B, H, W, C].

  Parameters, times, their embeddings, the statistics of group norms and the
  output are float32 whatever `dtype` is.

  Args:
    data_shape: Shape (H, W, C) of one image.
    widths: Channels of each level; from one to the next the sides halve.
    layers: Residual blocks of the encoder at each level.
    attention: Numbers of the levels that attend, 0 for the first.
    middle_attention: Whether the blocks between the two halves attend.
    head_features: Features of an attention head; 0 for one head.
    groups: Groups of each norm; they divide every width.
    epsilon: Added to the variance in norms.
    scale_shift: Whether the embedding scales and shifts, or is added.
    padding: Zeros in front of an image that is halved, 0 or 1; one is behind.
    num_classes: Number of labels; 0 makes the network ignore `cond`. The null
      label is `num_classes`; cond None stands for it.
    cond_size: Numbers of a label that is a vector, 0 without: `cond` is then
      [B, cond_size], and NaN stands for none.
    second_time: Whether the network sees t - s, or ignores `s`.
    guidance_inputs: Whether the network sees `omega`, `t_start` and `t_end` of
      `cond`, a dict then.
    heads: Number of predictions; more than one make a tuple.
    learned_variance: Whether the output has as many channels more, those of a
      learned variance, which the prediction leaves out.
    time_scale: Factor on times before the sinusoids.
    time_shift: Added to t, behind that factor.
    max_period: The frequencies of the sinusoids go from 1 down towards
      1 / max_period.
    sines_first: Whether the sines stand before the cosines.
    dropout: Share of every block's hidden units dropped when a key is given.
    dtype: "float32" or "bfloat16", the type of the blocks' arithmetic.

  Raises:
    UsageError: If an option has an impossible value.

  Example:
    >>> network = unet2d(
    ...     data_shape=(4, 4, 1), widths=(8, 16), layers=1, groups=4)
    >>> params = jax.eval_shape(network.init, jax.random.key(0))
    >>> xt, t = jnp.ones((3, 4, 4, 1)), jnp.ones(3)
    >>> jax.eval_shape(network.apply, params, xt, t, t, None).shape
    (3, 4, 4, 1)
  """
  checks.at_least(1, layers=layers, groups=groups)
  checks.image_network(
    data_shape=data_shape,
    num_classes=num_classes,
    cond_size=cond_size,
    heads=heads,
    dropout=dropout,
  )
  halvings = len(widths) - 1
  if not widths or any(width < 2 or width % groups for width in widths):
    raise UsageError(
      f"widths={tuple(widths)}: give one or more multiples of groups={groups}"
    )
  if any(side % 2**halvings for side in data_shape[:2]):
    raise UsageError(
      f"widths={tuple(widths)}: {len(widths)} levels halve the sides of "
      f"data_shape={tuple(data_shape)} {halvings} times, which {2**halvings} "
      "must divide; give fewer"
    )
  if set(attention) - set(range(len(widths))):
    raise UsageError(
      f"attention={tuple(attention)}: give numbers of levels, 0 to {halvings}"
    )
  if head_features and any(width % head_features for width in widths):
    raise UsageError(
      f"head_features={head_features}: must divide widths={tuple(widths)}"
    )
  if padding not in (0, 1):
    raise UsageError(f"padding={padding}: give 0 or 1")
  compute = compute_dtype(dtype)
  return functional(
    lambda rngs: UNet2D(
      data_shape=tuple(data_shape),
      widths=tuple(widths),
      layers=layers,
      attention=tuple(attention),
      middle_attention=middle_attention,
      num_classes=num_classes,
      cond_size=cond_size,
      second_time=second_time,
      guidance_inputs=guidance_inputs,
      heads=heads,
      learned_variance=learned_variance,
      waves={"scale": time_scale, "max_period": max_period},
      time_shift=time_shift,
      sines_first=sines_first,
      options={
        "embedding": 4 * widths[0],
        "head_features": head_features,
        "groups": groups,
        "epsilon": epsilon,
        "scale_shift": scale_shift,
        "padding": padding,
        "dropout": dropout,
        "dtype": compute,
        "rngs": rngs,
      },
    )
  )


def _norm(width: int, options: Options) -> nnx.GroupNorm:
  return group_norm(
    width,
    options["groups"],
    options["dtype"],
    options["rngs"],
    epsilon=options["epsilon"],
  )
