"""The U-Nets DDPM++, NCSN++ and ADM, for one time or two.

An encoder of `num_blocks` blocks a level halves the sides between levels; a
decoder with one block more a level doubles them again, and each of its blocks
sees the output of one layer of the encoder, the last one first. Two blocks, the
first of which attends, join the two. The blocks are conditioned on

  e = silu(embed(waves(t) + label) + embed'(waves(t - s)))

whose second term, as in MeanFlow, is there for networks of two times only.
Guidance may add three terms, and how a picture was augmented one to the waves.

This is DDPM++. NCSN++ has random waves of t and smooth resampling, and its
encoder sees the image at every level: behind each block that halves the sides,
x = (x + halve(conv(y))) / sqrt2 with y the image first and then the x before.
ADM adds the label behind embed, and has the blocks of `unet_parts`.

References:
  Song et al., 2021, arXiv:2011.13456, appendix H: DDPM++, NCSN++.
  Dhariwal, Nichol, 2021, arXiv:2105.05233: ADM.
  Karras et al., 2022, arXiv:2206.00364, table 7: sizes for CIFAR-10.
  Geng et al., 2025, arXiv:2505.13447: the second time embedding.
"""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from jaxflow.errors import UsageError
from jaxflow.models import checks
from jaxflow.models.embeddings import (
  GuidanceEmbedder,
  label_embedder,
  sinusoidal,
)
from jaxflow.models.network import Network, compute_dtype, functional
from jaxflow.models.unet_blocks import (
  Embedder,
  UNetBlock,
  convolution,
  group_norm,
  smooth_halve,
)
from jaxflow.models.unet_layout import check_levels, layers, steps
from jaxflow.models.unet_parts import Parts, parts_of
from jaxflow.models.unet_walk import ImageUNet, Keys, Step
from jaxflow.options import BelowOne, Count, Finite, Layers, Natural
from jaxflow.types import Array, PyTree


class UNet(ImageUNet):
  """A U-Net over images [B, H, W, C]."""

  def __init__(
    self,
    *,
    parts: Parts,
    data_shape: tuple[int, ...],
    channels: int,
    multipliers: tuple[int, ...],
    num_blocks: int,
    attention_resolutions: tuple[int, ...],
    num_classes: int,
    cond_size: int,
    augment_size: int,
    second_time: bool,
    guidance_inputs: bool,
    heads: int,
    time_scale: float,
    log_time: bool,
    dropout: float,
    dtype: Any,
    remat: bool,
    rngs: nnx.Rngs,
  ):
    super().__init__(data_shape, heads, dtype)
    self.parts = parts
    self.features: int = channels * parts.wave_factor
    self.time_scale = time_scale
    self.log_time = log_time
    self.remat = remat
    embedding = 4 * channels
    features = self.features
    embedder = {"init": parts.init, "rngs": rngs}
    self.frequencies: nnx.Param[Any] | None = (
      nnx.Param(16 * jax.random.normal(rngs.params(), (features // 2,)))
      if parts.random_waves
      else None
    )
    self.time: Embedder = Embedder(features, embedding, **embedder)
    self.interval = (
      Embedder(features, embedding, **embedder) if second_time else None
    )
    # The deviation of a one-hot label times sqrt(num_classes), through a linear
    # map with Xavier's initial values, as published; behind the embedding it is
    # 1, as published.
    std = math.sqrt(2 * num_classes / (num_classes + features))
    self.label = label_embedder(
      num_classes,
      cond_size,
      embedding if parts.late_label else features,
      std=1.0 if parts.late_label else std,
      rngs=rngs,
    )
    self.augment = (
      nnx.Linear(
        augment_size,
        features,
        use_bias=False,
        kernel_init=parts.init,
        rngs=rngs,
      )
      if augment_size
      else None
    )
    self.guidance = (
      GuidanceEmbedder(embedding, scale=time_scale, rngs=rngs)
      if guidance_inputs
      else None
    )
    encoder, decoder = layers(
      data_shape[0],
      channels,
      multipliers,
      num_blocks,
      attention_resolutions,
      parts.attends_late,
    )
    self.input: nnx.Conv = convolution(
      data_shape[2], channels, dtype, rngs, init=parts.init
    )
    for name, part in (("encoder", encoder), ("decoder", decoder)):
      for i, layer in enumerate(part):
        block = UNetBlock(
          layer,
          embedding,
          parts=parts,
          dropout=dropout,
          dtype=dtype,
          rngs=rngs,
        )
        setattr(self, f"{name}_{i}", block)
    self.walks(*steps(encoder, decoder))
    self.sees: tuple[str, ...] = tuple(
      f"input_{i}"
      for i, layer in enumerate(encoder)
      if parts.residual_input and layer.resample == "halve"
    )
    before = data_shape[2]
    for i, layer in enumerate(encoder):
      if f"input_{i}" in self.sees:
        # With so wide a border the filter behind needs none.
        seen = convolution(
          before, layer.width, dtype, rngs, init=parts.init, padding=2
        )
        setattr(self, f"input_{i}", seen)
        before = layer.width
    width = decoder[-1].width
    self.norm: nnx.GroupNorm = group_norm(
      width, jnp.float32, rngs, epsilon=parts.epsilon
    )
    self.output: nnx.Conv = convolution(
      width, heads * data_shape[2], jnp.float32, rngs
    )

  def _first(self, image: Array) -> Array:
    return self.input(image)

  def _last(self, x: Array) -> Array:
    return self.output(jax.nn.silu(self.norm(x)))

  def _see(self, step: Step, x: Array, image: Array) -> tuple[Array, Array]:
    name = step.module.replace("encoder", "input")
    if name not in self.sees:
      return x, image
    seen = smooth_halve(getattr(self, name)(image), around=0)
    x = (x + seen) / math.sqrt(2)
    return x, x

  def _run(self, step: Step, x: Array, e: Array, keys: Keys) -> Array:
    if not self.remat:
      return super()._run(step, x, e, keys)
    graph, state = nnx.split(getattr(self, step.module))

    @jax.checkpoint
    def run(params, x, e, key):
      return nnx.merge(graph, params, copy=True)(x, e, key)

    return run(nnx.to_pure_dict(state), x, e, next(keys))

  def _embedding(self, t: Array, s: Array, cond: PyTree) -> Array:
    t = t.astype(jnp.float32)
    features = self._waves(jnp.log(self.time_scale * t) if self.log_time else t)
    augmented = isinstance(cond, dict) and "augment" in cond
    if self.augment is not None and augmented:
      numbers = _augmentation(cond, self.augment.in_features)
      features = features + self.augment(numbers)
    late = self.parts.late_label
    label = 0 if self.label is None else self.label(cond, t.shape[0])
    embedding = self.time(features if late else features + label)
    if late:
      embedding = embedding + label
    if self.interval is not None:
      gap = t - s.astype(jnp.float32)
      embedding = embedding + self.interval(self._waves(gap))
    if self.guidance is not None:
      embedding = embedding + self.guidance(cond)
    return jax.nn.silu(embedding)

  def _waves(self, t: Array) -> Array:
    scale = 1.0 if self.log_time else self.time_scale
    if self.frequencies is not None:
      frequencies = jax.lax.stop_gradient(self.frequencies[...])
      angles = 2 * math.pi * scale * t[:, None] * frequencies[None, :]
      return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    # With this period the lowest frequency is 1e-4 itself.
    half = self.features // 2
    period = 1e4 ** (half / (half - 1)) if self.parts.end_point else 1e4
    return sinusoidal(t, self.features, max_period=period, scale=scale)


def _augmentation(cond: dict[str, Any], size: int) -> Array:
  """Return how pictures were augmented, [B, size]."""
  numbers = cond["augment"]
  if numbers.ndim != 2 or numbers.shape[1] != size:
    raise UsageError(
      f"cond: augment of shape {numbers.shape}; give augment_size={size} "
      "numbers for each sample"
    )
  return numbers.astype(jnp.float32)


def unet(
  *,
  data_shape: tuple[int, int, int],
  architecture: Literal["ddpm++", "ncsn++", "adm"] = "ddpm++",
  channels: Count = 128,
  multipliers: tuple[int, ...] = (2, 2, 2),
  num_blocks: Layers = 4,
  attention_resolutions: tuple[int, ...] = (16,),
  num_classes: Natural = 0,
  cond_size: Natural = 0,
  augment_size: Natural = 0,
  second_time: bool = True,
  guidance_inputs: bool = False,
  heads: Layers = 1,
  time_scale: Finite = 1.0,
  log_time: bool = False,
  dropout: BelowOne = 0.0,
  dtype: str = "float32",
  remat: bool = False,
) -> Network:
  """Make a U-Net for images [B, H, W, C]; by default EDM's of CIFAR-10.

  Parameters, times, their embeddings, the statistics of group norms and the
  output are float32 whatever `dtype` is.

  Args:
    data_shape: Shape (H, W, C) of one image.
    architecture: "ddpm++", "ncsn++" or "adm".
    channels: Channels of the first layer, and sinusoidal features of a time.
    multipliers: Factors on `channels`, one a level; from one level to the next
      the sides halve.
    num_blocks: Blocks of the encoder at each level; the decoder has one more.
    attention_resolutions: Heights at which blocks attend, of those that there
      are; whatever they are, one block between encoder and decoder does.
    num_classes: Number of labels; 0 makes the network ignore `cond`. The null
      label is `num_classes`; cond None stands for it.
    cond_size: Numbers of a label that is a vector, 0 without: `cond` is then
      [B, cond_size], and NaN stands for none.
    augment_size: Numbers that say how a picture was augmented, 0 without:
      `cond` may be a dict with them, "augment" [B, augment_size], beside
      "label". Zeros, for none, stand for what is absent.
    second_time: Whether the network sees t - s, or ignores `s`.
    guidance_inputs: Whether the network sees `omega`, `t_start` and `t_end` of
      `cond`, a dict then.
    heads: Number of predictions, which share all but the last convolution;
      more than one make a tuple.
    time_scale: Factor on times before the sinusoids.
    log_time: Whether the sinusoids are of the logarithm of t times that factor.
    dropout: Share of every block's hidden units dropped when a key is given.
    dtype: "float32" or "bfloat16", the type of the blocks' arithmetic.
    remat: Whether to recompute each block in the backward pass.

  Raises:
    UsageError: If an option has an impossible value.

  Example:
    >>> network = unet(
    ...     data_shape=(4, 4, 1), channels=8, multipliers=(1, 2), num_blocks=1,
    ...     attention_resolutions=(2,))
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
    augment_size=augment_size,
    heads=heads,
    dropout=dropout,
  )
  check_levels(data_shape, channels, multipliers, attention_resolutions)
  parts = parts_of(architecture)
  features = parts.head_features
  if features and any(channels * factor % features for factor in multipliers):
    raise UsageError(
      f"channels={channels}, multipliers={tuple(multipliers)}: give products "
      f"that {features} divides, the features of a head of {architecture}"
    )
  compute = compute_dtype(dtype)
  return functional(
    lambda rngs: UNet(
      parts=parts,
      data_shape=tuple(data_shape),
      channels=channels,
      multipliers=tuple(multipliers),
      num_blocks=num_blocks,
      attention_resolutions=tuple(attention_resolutions),
      num_classes=num_classes,
      cond_size=cond_size,
      augment_size=augment_size,
      second_time=second_time,
      guidance_inputs=guidance_inputs,
      heads=heads,
      time_scale=time_scale,
      log_time=log_time,
      dropout=dropout,
      dtype=compute,
      remat=remat,
      rngs=rngs,
    )
  )
