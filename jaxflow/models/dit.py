"""The Diffusion Transformer with adaLN-Zero, for one time or two.

An image is cut into patches, each a token with a fixed sine-cosine position.
The blocks are conditioned on c = embed(t) + embed'(t - s) + embed(label); the
second term, as in MeanFlow, is there for networks of two times only.

References:
  Peebles and Xie, 2022, arXiv:2212.09748: architecture, sizes, initialisation.
  Geng et al., 2025, arXiv:2505.13447: the second time embedding.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from jaxflow.errors import UsageError
from jaxflow.models.blocks import Blocks
from jaxflow.models.embeddings import (
  LabelEmbedder,
  TimeEmbedder,
  position_table,
)
from jaxflow.models.network import Network, compute_dtype, functional
from jaxflow.models.patches import patchify, unpatchify
from jaxflow.models.transformer import (
  Block,
  Modulation,
  layer_norm,
  modulate,
)
from jaxflow.types import Array, PyTree


class Size(NamedTuple):
  """Depth, width and number of heads of a transformer."""

  depth: int
  width: int
  num_heads: int


SIZES = {
  "tiny": Size(3, 64, 4),
  "S": Size(12, 384, 6),
  "B": Size(12, 768, 12),
  "M": Size(16, 1024, 16),
  "L": Size(24, 1024, 16),
  "XL": Size(28, 1152, 16),
}


class DiT(nnx.Module):
  """A Diffusion Transformer over images [B, H, W, C]."""

  def __init__(
    self,
    *,
    image_shape: tuple[int, int, int],
    patch_size: int,
    width: int,
    depth: int,
    num_heads: int,
    num_classes: int,
    second_time: bool,
    time_scale: float,
    dropout: float,
    dtype: Any,
    scan_layers: bool,
    remat: bool,
    rngs: nnx.Rngs,
  ):
    self.image_shape = image_shape
    self.patch_size = patch_size
    self.width = width
    self.dtype = dtype
    pixels = patch_size**2 * image_shape[2]
    self.patch = nnx.Linear(
      pixels,
      width,
      kernel_init=nnx.initializers.xavier_uniform(),
      dtype=self.dtype,
      rngs=rngs,
    )
    self.time = TimeEmbedder(width, scale=time_scale, rngs=rngs)
    self.interval = (
      TimeEmbedder(width, scale=time_scale, rngs=rngs) if second_time else None
    )
    self.label = (
      LabelEmbedder(num_classes, width, rngs=rngs) if num_classes else None
    )
    self.blocks = Blocks(
      lambda rngs: Block(
        width, num_heads, dropout=dropout, dtype=self.dtype, rngs=rngs
      ),
      depth,
      scan=scan_layers,
      remat=remat,
      rngs=rngs,
    )
    self.norm = layer_norm(width, jnp.float32, rngs)
    self.modulation = Modulation(width, 2, dtype=jnp.float32, rngs=rngs)
    self.output = nnx.Linear(
      width, pixels, kernel_init=nnx.initializers.zeros, rngs=rngs
    )

  def __call__(
    self, xt: Array, t: Array, s: Array, cond: PyTree, key: Array | None
  ) -> Array:
    """Returns the prediction at `xt`, of its shape, float32."""
    if xt.shape[1:] != self.image_shape:
      raise UsageError(
        f"image_shape={self.image_shape}: the network was given {xt.shape[1:]}"
      )
    c = self._condition(t, s, cond)
    x = self.patch(patchify(xt, self.patch_size))
    x = x + self._positions()
    x = self.blocks(x, c, key)
    shift, scale = self.modulation(c)
    x = self.output(modulate(self.norm(x), shift, scale))
    return unpatchify(x, self.patch_size, self.image_shape)

  def _positions(self) -> Array:
    height, width, _ = self.image_shape
    rows, columns = height // self.patch_size, width // self.patch_size
    table = position_table(rows, columns, self.width)
    return jnp.asarray(table, self.dtype)[None]

  def _condition(self, t: Array, s: Array, cond: PyTree) -> Array:
    t = t.astype(jnp.float32)
    c = self.time(t)
    if self.interval is not None:
      c = c + self.interval(t - s.astype(jnp.float32))
    if self.label is not None:
      c = c + self.label(cond, t.shape[0])
    return c


def dit(
  size: str | tuple[int, int, int] = "B",
  *,
  image_shape: tuple[int, int, int],
  patch_size: int = 2,
  num_classes: int = 0,
  second_time: bool = True,
  time_scale: float = 1.0,
  dropout: float = 0.0,
  dtype: Any = jnp.float32,
  scan_layers: bool = False,
  remat: bool = False,
) -> Network:
  """Makes a Diffusion Transformer.

  Parameters, times, their embeddings, the statistics of layer norms and the
  output are float32 whatever `dtype` is.

  Args:
    size: A name in `SIZES`, or (depth, width, number of heads).
    image_shape: Shape (H, W, C) of one image or latent.
    patch_size: Side of a square patch; divides H and W.
    num_classes: Number of labels; 0 makes the network ignore `cond`. The null
      label is `num_classes`; cond None stands for it.
    second_time: Whether the network sees t - s; False makes it ignore `s`.
    time_scale: Factor on times before the sinusoids.
    dropout: Share of the MLPs' hidden units, and of both branches' outputs,
      dropped when a key is given.
    dtype: float32 or bfloat16, the type of the blocks' arithmetic.
    scan_layers: Whether to scan over stacked blocks: compiles faster.
      `stack_blocks` and `unstack_blocks` convert parameters.
    remat: Whether to recompute each block in the backward pass.

  Returns:
    A `Network` for images [B, H, W, C].

  Raises:
    UsageError: If a field has an impossible value.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> network = dit("tiny", image_shape=(4, 4, 1), num_classes=10)
    >>> params = network.init(jax.random.key(0))
    >>> xt, t, label = jnp.ones((3, 4, 4, 1)), jnp.ones(3), jnp.array([0, 1, 9])
    >>> network.apply(params, xt, t, t, label).shape
    (3, 4, 4, 1)
  """
  if isinstance(size, str) and size not in SIZES:
    raise UsageError(f"size={size!r}: give one of {', '.join(SIZES)}")
  depth, width, num_heads = SIZES[size] if isinstance(size, str) else size
  _check(
    Size(depth, width, num_heads),
    image_shape,
    patch_size,
    num_classes,
    dropout,
  )
  height, breadth, channels = image_shape
  dtype = compute_dtype(dtype)
  return functional(
    lambda rngs: DiT(
      image_shape=(height, breadth, channels),
      patch_size=patch_size,
      width=width,
      depth=depth,
      num_heads=num_heads,
      num_classes=num_classes,
      second_time=second_time,
      time_scale=time_scale,
      dropout=dropout,
      dtype=dtype,
      scan_layers=scan_layers,
      remat=remat,
      rngs=rngs,
    )
  )


def _check(
  size: Size,
  image_shape: tuple[int, int, int],
  patch_size: int,
  num_classes: int,
  dropout: float,
) -> None:
  _, width, num_heads = size
  if min(size) < 1:
    raise UsageError(f"size={tuple(size)}: give positive numbers")
  if width % num_heads or width % 4:
    raise UsageError(
      f"width={width}: must be divisible by num_heads={num_heads} (attention) "
      "and by 4 (positions)"
    )
  if len(image_shape) != 3 or min(image_shape) < 1:
    raise UsageError(
      f"image_shape={tuple(image_shape)}: give (height, width, channels)"
    )
  height, breadth, _ = image_shape
  if patch_size < 1 or height % patch_size or breadth % patch_size:
    raise UsageError(
      f"patch_size={patch_size}: must divide the height and the width of "
      f"image_shape={tuple(image_shape)}"
    )
  if num_classes < 0:
    raise UsageError(
      f"num_classes={num_classes}: give 0 (unconditional) or more"
    )
  if not 0 <= dropout < 1:
    raise UsageError(f"dropout={dropout}: give a share in [0, 1)")
