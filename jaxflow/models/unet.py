"""The DDPM++ U-Net, for one time or two.

An encoder of `num_blocks` blocks a level halves the sides between levels; a
decoder with one block more a level doubles them again, and each of its blocks
sees the output of one layer of the encoder, the last one first. Two blocks, the
first of which attends, join the two. The blocks are conditioned on

  e = silu(embed(waves(t) + label) + embed'(waves(t - s)))

whose second term, as in MeanFlow, is there for networks of two times only.
Guidance may add three terms. The published augmentation labels are left out.

References:
  Song et al., 2021, arXiv:2011.13456, appendix H: DDPM++.
  Karras et al., 2022, arXiv:2206.00364, table 7: sizes for CIFAR-10.
  Geng et al., 2025, arXiv:2505.13447: the second time embedding.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxflow.models import checks
from jaxflow.models.embeddings import (
  GuidanceEmbedder,
  LabelEmbedder,
  sinusoidal,
)
from jaxflow.models.network import Network, compute_dtype, functional
from jaxflow.models.unet_blocks import (
  Embedder,
  UNetBlock,
  convolution,
  group_norm,
)
from jaxflow.models.unet_layout import check_levels, layers
from jaxflow.options import Layers
from jaxflow.types import Array, PyTree


class UNet(nnx.Module):
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
    second_time: bool,
    guidance_inputs: bool,
    heads: int,
    time_scale: float,
    dropout: float,
    dtype: Any,
    remat: bool,
    rngs: nnx.Rngs,
  ):
    self.data_shape = data_shape
    self.channels = channels
    self.time_scale = time_scale
    self.dtype = dtype
    self.remat = remat
    embedding = 4 * channels
    self.time: Embedder = Embedder(channels, embedding, rngs=rngs)
    self.interval = (
      Embedder(channels, embedding, rngs=rngs) if second_time else None
    )
    # The deviation of a one-hot label times sqrt(num_classes), through a linear
    # map with Xavier's initial values, as published.
    std = math.sqrt(2 * num_classes / (num_classes + channels))
    self.label = (
      LabelEmbedder(num_classes, channels, std=std, rngs=rngs)
      if num_classes
      else None
    )
    self.guidance = (
      GuidanceEmbedder(embedding, scale=time_scale, rngs=rngs)
      if guidance_inputs
      else None
    )
    encoder, decoder = layers(
      data_shape[0], channels, multipliers, num_blocks, attention_resolutions
    )
    self.input: nnx.Conv = convolution(data_shape[2], channels, dtype, rngs)
    for name, part in (("encoder", encoder), ("decoder", decoder)):
      for i, layer in enumerate(part):
        block = UNetBlock(
          layer, embedding, dropout=dropout, dtype=dtype, rngs=rngs
        )
        setattr(self, f"{name}_{i}", block)
    self.depth: int = len(encoder)
    self.joins: tuple[bool, ...] = tuple(layer.joins for layer in decoder)
    width = decoder[-1].width
    self.norm: nnx.GroupNorm = group_norm(width, jnp.float32, rngs)
    self.heads = heads
    self.output: nnx.Conv = convolution(
      width, heads * data_shape[2], jnp.float32, rngs, zero=True
    )

  def __call__(
    self, xt: Array, t: Array, s: Array, cond: PyTree, key: Array | None
  ) -> Array | tuple[Array, ...]:
    """Return the prediction at `xt`, of its shape, float32; one a head."""
    x = self._activations(xt, t, s, cond, key)[-1].astype(jnp.float32)
    output = self.output(jax.nn.silu(self.norm(x)))
    predictions = tuple(jnp.split(output, self.heads, axis=-1))
    return predictions if self.heads > 1 else output

  def hidden(
    self, xt: Array, t: Array, s: Array, cond: PyTree
  ) -> tuple[Array, ...]:
    """Return the images [B, h, w, c] after every block."""
    return tuple(self._activations(xt, t, s, cond, None))

  def _activations(
    self, xt: Array, t: Array, s: Array, cond: PyTree, key: Array | None
  ) -> list[Array]:
    checks.shape(xt, self.data_shape)
    embedding = self._embedding(t, s, cond).astype(self.dtype)
    count = self.depth + len(self.joins)
    keys = [None] * count if key is None else list(jax.random.split(key, count))
    x = self.input(xt.astype(self.dtype))
    skips, outputs = [x], []
    for i in range(self.depth):
      x = self._block(f"encoder_{i}", x, embedding, keys[i])
      skips.append(x)
      outputs.append(x)
    for i, joins in enumerate(self.joins):
      if joins:
        x = jnp.concatenate([x, skips.pop()], axis=-1)
      x = self._block(f"decoder_{i}", x, embedding, keys[self.depth + i])
      outputs.append(x)
    return outputs

  def _block(
    self, name: str, x: Array, embedding: Array, key: Array | None
  ) -> Array:
    if not self.remat:
      return getattr(self, name)(x, embedding, key)
    graph, state = nnx.split(getattr(self, name))

    @jax.checkpoint
    def run(params, x, embedding, key):
      return nnx.merge(graph, params, copy=True)(x, embedding, key)

    return run(nnx.to_pure_dict(state), x, embedding, key)

  def _embedding(self, t: Array, s: Array, cond: PyTree) -> Array:
    t = t.astype(jnp.float32)
    features = self._waves(t)
    if self.label is not None:
      features = features + self.label(cond, t.shape[0])
    embedding = self.time(features)
    if self.interval is not None:
      gap = t - s.astype(jnp.float32)
      embedding = embedding + self.interval(self._waves(gap))
    if self.guidance is not None:
      embedding = embedding + self.guidance(cond)
    return jax.nn.silu(embedding)

  def _waves(self, t: Array) -> Array:
    # With this period the lowest frequency is 1e-4 itself, as published.
    half = self.channels // 2
    period = 1e4 ** (half / (half - 1))
    return sinusoidal(
      t, self.channels, max_period=period, scale=self.time_scale
    )


def unet(
  *,
  data_shape: tuple[int, int, int],
  channels: int = 128,
  multipliers: tuple[int, ...] = (2, 2, 2),
  num_blocks: Layers = 4,
  attention_resolutions: tuple[int, ...] = (16,),
  num_classes: int = 0,
  second_time: bool = True,
  guidance_inputs: bool = False,
  heads: Layers = 1,
  time_scale: float = 1.0,
  dropout: float = 0.0,
  dtype: str = "float32",
  remat: bool = False,
) -> Network:
  """Make a DDPM++ U-Net for images [B, H, W, C]; by default EDM's of CIFAR-10.

  Parameters, times, their embeddings, the statistics of group norms and the
  output are float32 whatever `dtype` is.

  Args:
    data_shape: Shape (H, W, C) of one image.
    channels: Channels of the first layer, and sinusoidal features of a time.
    multipliers: Factors on `channels`, one a level; from one level to the next
      the sides halve.
    num_blocks: Blocks of the encoder at each level; the decoder has one more.
    attention_resolutions: Heights at which blocks attend, of those that there
      are; whatever they are, one block between encoder and decoder does.
    num_classes: Number of labels; 0 makes the network ignore `cond`. The null
      label is `num_classes`; cond None stands for it.
    second_time: Whether the network sees t - s, or ignores `s`.
    guidance_inputs: Whether the network sees `omega`, `t_start` and `t_end` of
      `cond`, a dict then.
    heads: Number of predictions, which share all but the last convolution;
      more than one make a tuple.
    time_scale: Factor on times before the sinusoids.
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
    data_shape=data_shape, num_classes=num_classes, heads=heads, dropout=dropout
  )
  check_levels(data_shape, channels, multipliers, attention_resolutions)
  compute = compute_dtype(dtype)
  return functional(
    lambda rngs: UNet(
      data_shape=tuple(data_shape),
      channels=channels,
      multipliers=tuple(multipliers),
      num_blocks=num_blocks,
      attention_resolutions=tuple(attention_resolutions),
      num_classes=num_classes,
      second_time=second_time,
      guidance_inputs=guidance_inputs,
      heads=heads,
      time_scale=time_scale,
      dropout=dropout,
      dtype=compute,
      remat=remat,
      rngs=rngs,
    )
  )
