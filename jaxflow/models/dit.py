"""The Diffusion Transformer with adaLN-Zero, for one time or two.

An image, a sequence or a volume is cut into patches, each a token with a fixed
sine-cosine position.
The blocks are conditioned on c = embed(t) + embed'(t - s) + embed(label); the
second term, as in MeanFlow, is there for networks of two times only. Guidance
may add three terms. Further heads, as in improved MeanFlow, leave the network
before its last `head_depth` blocks and have blocks of their own.

With `context` the conditions are tokens in front of those of the image, and
blocks are gated by parameters: with RMS norms, SwiGLU, normalised queries and
keys and rotary positions that is the transformer of improved MeanFlow. Without
times, with noise labels and `summary_tokens`, it is a drifting generator.

References:
  Peebles and Xie, 2022, arXiv:2212.09748: architecture, sizes, initialisation.
  Geng et al., 2025, arXiv:2505.13447: the second time embedding.
  Geng et al., 2025, arXiv:2512.02012: heads, guidance as an input, context.
  Deng et al., 2026, arXiv:2602.04770: drifting generators.
  Darcet et al., 2023, arXiv:2309.16588: registers.
"""

import functools
import math
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from jaxflow.errors import UsageError
from jaxflow.models import checks
from jaxflow.models.attention import Kind
from jaxflow.models.context import Context
from jaxflow.models.embeddings import (
  Embedding,
  GuidanceEmbedder,
  TimeEmbedder,
  condition,
  label_embedder,
  position_table,
)
from jaxflow.models.generator_inputs import NoiseEmbedder, ScaleEmbedder
from jaxflow.models.layers import TokenLinear
from jaxflow.models.network import Network, compute_dtype, functional
from jaxflow.models.patches import patchify, unpatchify
from jaxflow.models.transformer import Block, Blocks, Head, Output, Parts
from jaxflow.options import (
  Amount,
  BelowOne,
  Count,
  Finite,
  Layers,
  Natural,
  Positive,
  Range,
)
from jaxflow.types import Array, PyTree

SIZES = {
  "tiny": {"depth": 3, "width": 64, "num_heads": 4},
  "S": {"depth": 12, "width": 384, "num_heads": 6},
  "B": {"depth": 12, "width": 768, "num_heads": 12},
  "M": {"depth": 16, "width": 1024, "num_heads": 16},
  "L": {"depth": 24, "width": 1024, "num_heads": 16},
  "XL": {"depth": 28, "width": 1152, "num_heads": 16},
}
"""The published sizes, and a tiny one: keyword arguments of `dit`."""


_FURTHER = Range("-1 or more", lambda x: x >= -1)


class DiT(Output):
  """A Diffusion Transformer over images [B, H, W, C], or other grids."""

  def __init__(
    self,
    *,
    data_shape: tuple[int, ...],
    parts: Parts,
    patch_size: int,
    depth: int,
    num_classes: int,
    sees_time: bool,
    cond_size: int,
    second_time: bool,
    second_time_from: int,
    guidance_inputs: bool,
    heads: int,
    head_depth: int,
    further_depth: int,
    time_scale: float,
    time_shift: float,
    max_period: float,
    positions: str,
    context: tuple[int, ...],
    summary_tokens: int,
    registers: int,
    omega: float,
    noise_labels: int,
    noise_classes: int,
    own_embeddings: bool,
    learned_variance: bool,
    scan_layers: bool,
    remat: bool,
    rngs: nnx.Rngs,
  ):
    width, dtype = parts.width, parts.dtype
    self.data_shape = data_shape
    self.patch_size = patch_size
    self.grid = tuple(n // patch_size for n in data_shape[:-1])
    self.width = width
    self.dtype = dtype
    self.heads = heads
    self.trunk: int = depth - head_depth
    self.second_time_from = second_time_from
    self.positions = positions
    self.own_embeddings = own_embeddings
    self.output_channels: int = data_shape[-1] * (1 + learned_variance)
    pixels = patch_size ** len(self.grid) * data_shape[-1]
    xavier = nnx.initializers.xavier_uniform()
    self.patch: TokenLinear = TokenLinear(
      pixels, width, kernel_init=xavier, dtype=dtype, rngs=rngs
    )
    waves = {"scale": time_scale, "max_period": max_period}
    times = {**waves, "scaled": bool(context), "rngs": rngs}
    if not own_embeddings:
      self.time: TimeEmbedder | None = (
        TimeEmbedder(width, shift=time_shift, **times) if sees_time else None
      )
      self.interval: TimeEmbedder | None = (
        TimeEmbedder(width, **times)
        if second_time and not second_time_from
        else None
      )
      self.label = label_embedder(
        num_classes,
        cond_size,
        width,
        std=width**-0.5 if context else 0.02,
        rngs=rngs,
      )
    make_embedding = functools.partial(
      Embedding,
      width,
      num_classes=num_classes,
      cond_size=cond_size,
      second_time=second_time,
      guidance_inputs=guidance_inputs,
      shift=time_shift,
      **waves,
    )
    make_blocks = functools.partial(
      Blocks,
      lambda rngs: Block(
        parts,
        rngs=rngs,
        make_embedding=(
          (lambda rngs: make_embedding(rngs=rngs)) if own_embeddings else None
        ),
      ),
      attention=parts.attention,
      scan=scan_layers,
      remat=remat,
    )
    self.blocks = make_blocks(depth, rngs=rngs)
    pixels = patch_size ** len(self.grid) * self.output_channels
    super().__init__(parts, pixels, rngs=rngs)
    if not own_embeddings:
      self.guidance = (
        GuidanceEmbedder(width, **times) if guidance_inputs else None
      )
    for i in range(1, heads):
      blocks = make_blocks(further_depth, rngs=rngs) if further_depth else None
      setattr(self, f"head_{i}", Head(blocks, parts, pixels, rngs=rngs))
    self.context = Context(context, width, self, rngs=rngs) if context else None
    self.scale = ScaleEmbedder(width, omega, rngs=rngs) if omega else None
    self.noise = (
      NoiseEmbedder(noise_labels, noise_classes, width, rngs=rngs)
      if noise_labels
      else None
    )
    self.summary = (
      Summary(width, summary_tokens, dtype=dtype, rngs=rngs)
      if summary_tokens
      else None
    )
    self.registers = Registers(width, registers, rngs) if registers else None
    if positions == "learned":
      self.table: nnx.Param[Any] = nnx.Param(
        jnp.asarray(position_table(self.grid, width))
      )

  def __call__(
    self, xt: Array, t: Array, s: Array, cond: PyTree, key: Array | None
  ) -> Array | tuple[Array, ...]:
    """Return the prediction at `xt`, of its shape, float32; one a head."""
    x, c, last = self._inputs(xt, t, s, cond)
    if self.heads == 1:
      return self._image(self.project(self._trunk(x, c, key), last))
    x = self.blocks(x, c, key, slice(self.trunk))
    first = self.blocks(x, c, key, slice(self.trunk, None))
    tokens = [self.project(first, last)]
    for i in range(1, self.heads):
      head_key = None if key is None else jax.random.fold_in(key, i)
      tokens.append(getattr(self, f"head_{i}")(x, c, head_key))
    return tuple(map(self._image, tokens))

  def hidden(
    self, xt: Array, t: Array, s: Array, cond: PyTree
  ) -> tuple[Array, ...]:
    """Return the tokens [B, *grid, width] after every block."""
    x, c, _ = self._inputs(xt, t, s, cond)
    layers = []
    for i in range(self.blocks.depth):
      own = c
      if self.second_time_from:
        own = c[i >= self.second_time_from]
      x = self.blocks(x, own, None, slice(i, i + 1))
      patches = self._patches(x)
      layers.append(patches.reshape(-1, *self.grid, self.width))
    return tuple(layers)

  def _trunk(self, x: Array, c: Any, key: Array | None) -> Array:
    """Return the tokens after all blocks."""
    if not self.second_time_from:
      return self.blocks(x, c, key)
    first, second = c
    x = self.blocks(x, first, key, slice(self.second_time_from))
    return self.blocks(x, second, key, slice(self.second_time_from, None))

  def _inputs(
    self, xt: Array, t: Array, s: Array, cond: PyTree
  ) -> tuple[Array, Any, Array]:
    """Return tokens, the condition of the blocks, and that of the output."""
    checks.shape(xt, self.data_shape)
    x = self.patch(patchify(xt, self.patch_size))
    if self.positions != "none":
      learned = self.positions == "learned"
      table = position_table(self.grid, self.width)
      positions = self.table[...] if learned else jnp.asarray(table)
      x = x + positions.astype(self.dtype)[None]
    if self.registers is not None:
      x = self.registers(x)
    if self.context is not None:
      front = self.context(self, t, s, cond, self.dtype)
      return jnp.concatenate([front, x], axis=1), None, t
    if self.own_embeddings:
      inputs = t, s, cond
      return x, inputs, condition(self.blocks.first().embedding, *inputs)
    c = self._condition(xt, t, s, cond)
    if self.summary is not None:
      x = jnp.concatenate([self.summary(c), x], axis=1)
    if not self.second_time_from:
      return x, c, c
    later = self._condition(xt, s, s, cond)
    return x, (c, later), later

  def _condition(self, xt: Array, t: Array, s: Array, cond: PyTree) -> Array:
    """Return the condition [B, width] that modulates blocks."""
    c = condition(self, t, s, cond)
    if self.scale is not None:
      c = c + self.scale(cond, t.shape[0])
    if self.noise is not None:
      c = c + self.noise(xt, cond)
    return c

  def _patches(self, tokens: Array) -> Array:
    """Return the tokens of the image, without those of the condition."""
    return tokens[:, -math.prod(self.grid) :]

  def _image(self, tokens: Array) -> Array:
    tokens = self._patches(tokens)
    shape = (*self.data_shape[:-1], self.output_channels)
    image = unpatchify(tokens, self.patch_size, shape)
    return image[..., : self.data_shape[-1]]


class Registers(nnx.Module):
  """Learned tokens in front of the image's, the same for every sample."""

  def __init__(self, width: int, count: int, rngs: nnx.Rngs):
    tokens = nnx.initializers.normal(0.02)(rngs.params(), (count, width))
    self.tokens: nnx.Param[Any] = nnx.Param(tokens.astype(jnp.float32))

  def __call__(self, x: Array) -> Array:
    """Return tokens [B, T, width] behind the registers."""
    tokens = self.tokens[...].astype(x.dtype)[None]
    front = jnp.broadcast_to(tokens, (x.shape[0], *tokens.shape[1:]))
    return jnp.concatenate([front, x], axis=1)


class Summary(nnx.Module):
  """Tokens in front of the image's: one linear map of the condition."""

  def __init__(self, width: int, count: int, *, dtype: Any, rngs: nnx.Rngs):
    init = nnx.initializers.xavier_uniform()
    self.linear: nnx.Linear = nnx.Linear(
      width, width, kernel_init=init, dtype=dtype, rngs=rngs
    )
    tokens = nnx.initializers.normal(0.02)(rngs.params(), (count, width))
    self.tokens: nnx.Param[Any] = nnx.Param(tokens.astype(jnp.float32))

  def __call__(self, c: Array) -> Array:
    """Return tokens [B, count, width] of a condition [B, width]."""
    mapped = self.linear(c)
    return mapped[:, None] + self.tokens[...].astype(mapped.dtype)[None]


def dit(
  *,
  data_shape: tuple[int, ...],
  depth: Layers = 12,
  width: Count = 768,
  num_heads: Count = 12,
  patch_size: Count = 2,
  num_classes: Natural = 0,
  cond_size: Natural = 0,
  second_time: bool = True,
  second_time_from: Natural = 0,
  guidance_inputs: bool = False,
  heads: Layers = 1,
  head_depth: Natural = 0,
  further_depth: Annotated[int, _FURTHER] = -1,
  sees_time: bool = True,
  time_scale: Finite = 1.0,
  time_shift: Finite = 0.0,
  max_period: Positive = 1e4,
  own_embeddings: bool = False,
  context: tuple[int, ...] = (),
  summary_tokens: Natural = 0,
  registers: Natural = 0,
  omega: Amount = 0.0,
  noise_labels: Natural = 0,
  noise_classes: Count = 64,
  positions: Literal["fixed", "learned", "none"] = "fixed",
  rotary: bool = False,
  norm: Literal["layer", "rms"] = "layer",
  qk_norm: bool = False,
  mlp: Literal["gelu", "swiglu"] = "gelu",
  mlp_width: Natural = 0,
  mlp_epsilon: Positive = 1e-6,
  bias: bool = True,
  learned_variance: bool = False,
  attention: Kind = "auto",
  dropout: BelowOne = 0.0,
  dtype: str = "float32",
  scan_layers: bool = True,
  remat: bool = False,
) -> Network:
  """Make a Diffusion Transformer for images [B, H, W, C].

  Sequences [B, L, C] are cut into patches along one axis, volumes
  [B, D, H, W, C] along three.

  Parameters, times, their embeddings, the statistics of layer norms and the
  output are float32 whatever `dtype` is.

  Args:
    data_shape: Shape of one sample: (H, W, C) of an image or latent, (L, C),
      (D, H, W, C).
    depth: Number of blocks; `SIZES` has the published combinations.
    width: Features of a token; divisible by `num_heads` and by 4.
    num_heads: Number of attention heads.
    patch_size: Side of a patch, along every axis; divides all of them.
    num_classes: Number of labels; 0 makes the network ignore `cond`. The null
      label is `num_classes`; cond None stands for it.
    cond_size: Numbers of a label that is a vector, 0 without: `cond` is then
      [B, cond_size], and NaN stands for none.
    second_time: Whether the network sees t - s, or ignores `s`.
    second_time_from: How many blocks see t alone; those behind them, and the
      output, see s alone, by the same embedding. The parameters are those of a
      network without a second time, which it is at s = t. 0: all see t - s.
    guidance_inputs: Whether the network sees `omega`, `t_start` and `t_end` of
      `cond`, a dict then.
    heads: Number of predictions; more than one make a tuple.
    head_depth: How many of the `depth` blocks the first head has for itself.
    further_depth: How many blocks of their own the other heads have; -1: as
      many.
    sees_time: Whether the network sees t, and not t - s alone.
    time_scale: Factor on times before the sinusoids.
    time_shift: Added to t, behind that factor.
    max_period: The frequencies of the sinusoids go from 1 down towards
      1 / max_period.
    own_embeddings: Whether every block embeds times and labels by itself; the
      output then has the embedding of the first block. One head only.
    context: Conditions are tokens in front of the image's: how many of them
      belong to the label, to the guidance scale, to each end of its interval,
      and to the times; (8, 4, 2, 4) is published. Empty: they modulate blocks.
    summary_tokens: How many tokens in front of the image's are a linear map of
      the condition; not with a context.
    registers: How many learned tokens stand in front of the image's, of no
      meaning but what blocks write there.
    omega: The guidance scale that the network is given, where `cond` has none;
      0: it takes none. Not with a context.
    noise_labels: How many labels that its noise decides the network is given;
      a `cond` may have them as "noise_labels". Not with a context.
    noise_classes: Number of values of a noise label.
    positions: What tokens begin with: the "fixed" table of sines and cosines, a
      "learned" one that begins so, or "none".
    rotary: Whether queries and keys are turned by the positions of all tokens.
    norm: "layer", without weights, or "rms", with weights.
    qk_norm: Whether queries and keys have RMS norms.
    mlp: "gelu", or "swiglu" with gated hidden units.
    mlp_width: Hidden units of an MLP; 0: 4 a feature.
    mlp_epsilon: Added to the variance in the norm before each MLP.
    bias: Whether attention and MLPs have biases.
    learned_variance: Whether the output has as many channels more, those of a
      learned variance, which the prediction leaves out.
    attention: How attention is computed: "xla" for all pairs of tokens at once,
      "blocks" in memory linear in the tokens, "kernel" by kernels for TPUs, in
      such memory too, or "auto", blocks for 1,024 tokens or more. All are the
      same function.
    dropout: Share of the MLPs' hidden units, and of both branches' outputs,
      dropped when a key is given.
    dtype: "float32" or "bfloat16", the type of the blocks' arithmetic.
    scan_layers: Whether to scan over stacked blocks. The compiler then sees one
      block, and the backward pass keeps products of matrices alone.
      `stack_blocks` and `unstack_blocks` convert parameters.
    remat: Whether to recompute each block in the backward pass.

  Raises:
    UsageError: If an option has an impossible value.

  Example:
    >>> network = dit(**SIZES["tiny"], data_shape=(4, 4, 1), num_classes=10)
    >>> params = network.init(jax.random.key(0))
    >>> xt, t, label = jnp.ones((3, 4, 4, 1)), jnp.ones(3), jnp.array([0, 1, 9])
    >>> network.apply(params, xt, t, t, label).shape
    (3, 4, 4, 1)
  """
  checks.at_least(1, depth=depth, width=width, num_heads=num_heads)
  if width % num_heads or width % 4:
    raise UsageError(
      f"width={width}: must be divisible by num_heads={num_heads} (attention) "
      "and by 4 (positions)"
    )
  checks.grid_network(
    data_shape=data_shape, num_classes=num_classes, heads=heads, dropout=dropout
  )
  if width < 2 * (len(data_shape) - 1):
    raise UsageError(f"width={width}: give 8 or more for three axes")
  if patch_size < 1 or any(n % patch_size for n in data_shape[:-1]):
    raise UsageError(
      f"patch_size={patch_size}: must divide all sizes but the last, the "
      f"channels, of data_shape={tuple(data_shape)}"
    )
  if not 0 <= head_depth <= (depth if heads > 1 else 0):
    raise UsageError(
      f"head_depth={head_depth}: give 0 to depth={depth} with two heads or "
      f"more, 0 with one; heads={heads}"
    )
  if own_embeddings and (heads > 1 or context or not sees_time):
    raise UsageError(
      f"own_embeddings=True with heads={heads}, context={tuple(context)}, "
      f"sees_time={sees_time}: give one head, no context and True, or False"
    )
  if second_time_from and (
    second_time_from > depth
    or not (second_time and sees_time)
    or (heads > 1 or context or own_embeddings)
  ):
    raise UsageError(
      f"second_time_from={second_time_from}: give at most depth={depth}, with "
      "second_time, sees_time, one head, no context and no own_embeddings, or 0"
    )
  if len(context) not in (0, 4) or min(context, default=1) < 1:
    raise UsageError(
      f"context={tuple(context)}: give four numbers, each 1 or more, or none"
    )
  if (context or own_embeddings) and (summary_tokens or omega or noise_labels):
    raise UsageError(
      f"summary_tokens={summary_tokens}, omega={omega}, "
      f"noise_labels={noise_labels}: give 0 with a context or own_embeddings"
    )
  if rotary and width // num_heads % 2:
    raise UsageError(
      f"rotary=True: heads of {width // num_heads} features cannot be turned; "
      "give an even number"
    )
  if not (sees_time or second_time or num_classes or cond_size):
    raise UsageError(
      "sees_time=False: the network would see no condition; set it to True"
    )
  parts = Parts(
    width=width,
    num_heads=num_heads,
    modulated=not context,
    norm=norm,
    mlp=mlp,
    mlp_width=mlp_width,
    mlp_epsilon=mlp_epsilon,
    bias=bias,
    qk_norm=qk_norm,
    rotary=rotary,
    attention=attention,
    dropout=dropout,
    dtype=compute_dtype(dtype),
  )
  return functional(
    lambda rngs: DiT(
      data_shape=tuple(data_shape),
      parts=parts,
      patch_size=patch_size,
      depth=depth,
      num_classes=num_classes,
      sees_time=sees_time,
      cond_size=cond_size,
      second_time=second_time,
      second_time_from=second_time_from,
      guidance_inputs=guidance_inputs,
      heads=heads,
      head_depth=head_depth,
      further_depth=head_depth if further_depth < 0 else further_depth,
      time_scale=time_scale,
      time_shift=time_shift,
      max_period=max_period,
      positions=positions,
      context=tuple(context),
      summary_tokens=summary_tokens,
      registers=registers,
      omega=omega,
      noise_labels=noise_labels,
      noise_classes=noise_classes,
      own_embeddings=own_embeddings,
      learned_variance=learned_variance,
      scan_layers=scan_layers,
      remat=remat,
      rngs=rngs,
    )
  )
