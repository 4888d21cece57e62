"""The Diffusion Transformer with adaLN-Zero, for one time or two.

An image is cut into patches, each a token with a fixed sine-cosine position.
The blocks are conditioned on c = embed(t) + embed'(t - s) + embed(label); the
second term, as in MeanFlow, is there for networks of two times only. Guidance
may add three terms. Further heads, as in improved MeanFlow, leave the network
before its last `head_depth` blocks and have blocks of their own.

References:
  Peebles and Xie, 2022, arXiv:2212.09748: architecture, sizes, initialisation.
  Geng et al., 2025, arXiv:2505.13447: the second time embedding.
  Geng et al., 2025, arXiv:2512.02012: heads and guidance as an input.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxflow.errors import UsageError
from jaxflow.models import checks
from jaxflow.models.embeddings import (
  Embedding,
  GuidanceEmbedder,
  LabelEmbedder,
  TimeEmbedder,
  condition,
  position_table,
)
from jaxflow.models.layers import TokenLinear
from jaxflow.models.network import Network, compute_dtype, functional
from jaxflow.models.patches import patchify, unpatchify
from jaxflow.models.transformer import Block, Blocks, Head, Output
from jaxflow.options import BelowOne, Count, Finite, Layers, Natural, Positive
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


class DiT(Output):
  """A Diffusion Transformer over images [B, H, W, C]."""

  def __init__(
    self,
    *,
    data_shape: tuple[int, ...],
    patch_size: int,
    width: int,
    depth: int,
    num_heads: int,
    num_classes: int,
    second_time: bool,
    guidance_inputs: bool,
    heads: int,
    head_depth: int,
    time_scale: float,
    time_shift: float,
    max_period: float,
    own_embeddings: bool,
    mlp_epsilon: float,
    learned_variance: bool,
    dropout: float,
    dtype: Any,
    scan_layers: bool,
    remat: bool,
    rngs: nnx.Rngs,
  ):
    self.data_shape = data_shape
    self.patch_size = patch_size
    self.grid = (data_shape[0] // patch_size, data_shape[1] // patch_size)
    self.width = width
    self.dtype = dtype
    self.heads = heads
    self.trunk: int = depth - head_depth
    self.own_embeddings = own_embeddings
    self.output_channels: int = data_shape[2] * (1 + learned_variance)
    pixels = patch_size**2 * data_shape[2]
    xavier = nnx.initializers.xavier_uniform()
    self.patch: TokenLinear = TokenLinear(
      pixels, width, kernel_init=xavier, dtype=dtype, rngs=rngs
    )
    waves = {"scale": time_scale, "max_period": max_period}
    times = {**waves, "rngs": rngs}
    if not own_embeddings:
      self.time: TimeEmbedder = TimeEmbedder(width, shift=time_shift, **times)
      self.interval: TimeEmbedder | None = (
        TimeEmbedder(width, **times) if second_time else None
      )
      self.label = (
        LabelEmbedder(num_classes, width, rngs=rngs) if num_classes else None
      )
    make_embedding = functools.partial(
      Embedding,
      width,
      num_classes=num_classes,
      second_time=second_time,
      guidance_inputs=guidance_inputs,
      shift=time_shift,
      **waves,
    )
    make_blocks = functools.partial(
      Blocks,
      lambda rngs: Block(
        width,
        num_heads,
        dropout=dropout,
        dtype=dtype,
        rngs=rngs,
        mlp_epsilon=mlp_epsilon,
        make_embedding=(
          (lambda rngs: make_embedding(rngs=rngs)) if own_embeddings else None
        ),
      ),
      scan=scan_layers,
      remat=remat,
    )
    self.blocks = make_blocks(depth, rngs=rngs)
    pixels = patch_size**2 * self.output_channels
    super().__init__(width, pixels, rngs=rngs)
    if not own_embeddings:
      self.guidance = (
        GuidanceEmbedder(width, **times) if guidance_inputs else None
      )
    for i in range(1, heads):
      blocks = make_blocks(head_depth, rngs=rngs) if head_depth else None
      setattr(self, f"head_{i}", Head(blocks, width, pixels, rngs=rngs))

  def __call__(
    self, xt: Array, t: Array, s: Array, cond: PyTree, key: Array | None
  ) -> Array | tuple[Array, ...]:
    """Return the prediction at `xt`, of its shape, float32; one a head."""
    x, (c, last) = self._tokens(xt), self._conditions(t, s, cond)
    if self.heads == 1:
      return self._image(self.project(self.blocks(x, c, key), last))
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
    """Return the tokens [B, rows, columns, width] after every block."""
    x, (c, _) = self._tokens(xt), self._conditions(t, s, cond)
    layers = []
    for i in range(self.blocks.depth):
      x = self.blocks(x, c, None, slice(i, i + 1))
      layers.append(x.reshape(-1, *self.grid, self.width))
    return tuple(layers)

  def _tokens(self, xt: Array) -> Array:
    checks.shape(xt, self.data_shape)
    positions = jnp.asarray(position_table(*self.grid, self.width), self.dtype)
    return self.patch(patchify(xt, self.patch_size)) + positions[None]

  def _image(self, tokens: Array) -> Array:
    shape = (*self.data_shape[:2], self.output_channels)
    return unpatchify(tokens, self.patch_size, shape)[..., : self.data_shape[2]]

  def _conditions(self, t: Array, s: Array, cond: PyTree) -> tuple[Any, Array]:
    """Return the condition of the blocks, and that of the output."""
    if self.own_embeddings:
      inputs = t, s, cond
      return inputs, condition(self.blocks.first().embedding, *inputs)
    c = condition(self, t, s, cond)
    return c, c


def dit(
  *,
  data_shape: tuple[int, int, int],
  depth: Layers = 12,
  width: Count = 768,
  num_heads: Count = 12,
  patch_size: Count = 2,
  num_classes: Natural = 0,
  second_time: bool = True,
  guidance_inputs: bool = False,
  heads: Layers = 1,
  head_depth: Natural = 0,
  time_scale: Finite = 1.0,
  time_shift: Finite = 0.0,
  max_period: Positive = 1e4,
  own_embeddings: bool = False,
  mlp_epsilon: Positive = 1e-6,
  learned_variance: bool = False,
  dropout: BelowOne = 0.0,
  dtype: str = "float32",
  scan_layers: bool = False,
  remat: bool = False,
) -> Network:
  """Make a Diffusion Transformer for images [B, H, W, C].

  Parameters, times, their embeddings, the statistics of layer norms and the
  output are float32 whatever `dtype` is.

  Args:
    data_shape: Shape (H, W, C) of one image or latent.
    depth: Number of blocks; `SIZES` has the published combinations.
    width: Features of a token; divisible by `num_heads` and by 4.
    num_heads: Number of attention heads.
    patch_size: Side of a square patch; divides H and W.
    num_classes: Number of labels; 0 makes the network ignore `cond`. The null
      label is `num_classes`; cond None stands for it.
    second_time: Whether the network sees t - s, or ignores `s`.
    guidance_inputs: Whether the network sees `omega`, `t_start` and `t_end` of
      `cond`, a dict then.
    heads: Number of predictions; more than one make a tuple.
    head_depth: How many of the `depth` blocks each head has for itself.
    time_scale: Factor on times before the sinusoids.
    time_shift: Added to t, behind that factor.
    max_period: The frequencies of the sinusoids go from 1 down towards
      1 / max_period.
    own_embeddings: Whether every block embeds times and labels by itself; the
      output then has the embedding of the first block. One head only.
    mlp_epsilon: Added to the variance in the norm before each MLP.
    learned_variance: Whether the output has as many channels more, those of a
      learned variance, which the prediction leaves out.
    dropout: Share of the MLPs' hidden units, and of both branches' outputs,
      dropped when a key is given.
    dtype: "float32" or "bfloat16", the type of the blocks' arithmetic.
    scan_layers: Whether to scan over stacked blocks: compiles faster.
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
  checks.image_network(
    data_shape=data_shape, num_classes=num_classes, heads=heads, dropout=dropout
  )
  height, breadth, _ = data_shape
  if patch_size < 1 or height % patch_size or breadth % patch_size:
    raise UsageError(
      f"patch_size={patch_size}: must divide the height and the width of "
      f"data_shape={tuple(data_shape)}"
    )
  if not 0 <= head_depth <= (depth if heads > 1 else 0):
    raise UsageError(
      f"head_depth={head_depth}: give 0 to depth={depth} with two heads or "
      f"more, 0 with one; heads={heads}"
    )
  if own_embeddings and heads > 1:
    raise UsageError(
      f"own_embeddings=True with heads={heads}: give one head, or False"
    )
  compute = compute_dtype(dtype)
  return functional(
    lambda rngs: DiT(
      data_shape=tuple(data_shape),
      patch_size=patch_size,
      width=width,
      depth=depth,
      num_heads=num_heads,
      num_classes=num_classes,
      second_time=second_time,
      guidance_inputs=guidance_inputs,
      heads=heads,
      head_depth=head_depth,
      time_scale=time_scale,
      time_shift=time_shift,
      max_period=max_period,
      own_embeddings=own_embeddings,
      mlp_epsilon=mlp_epsilon,
      learned_variance=learned_variance,
      dropout=dropout,
      dtype=compute,
      scan_layers=scan_layers,
      remat=remat,
      rngs=rngs,
    )
  )
