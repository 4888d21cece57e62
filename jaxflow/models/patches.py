"""Grids of any dimension as sequences of patches, and back."""

import math

from jaxflow.types import Array


def patchify(images: Array, patch_size: int) -> Array:
  """Cut images [B, H, W, C] into tokens [B, T, patch_size ** 2 * C].

  Tokens run row by row, and so do the pixels in a token. Sequences [B, L, C]
  and volumes [B, D, H, W, C] are cut alike, along each axis.

  Example:
    >>> import jax.numpy as jnp
    >>> patchify(jnp.arange(8.0).reshape(1, 2, 4, 1), 2)[0, 0].tolist()
    [0.0, 1.0, 4.0, 5.0]
  """
  batch, *sizes, channels = images.shape
  axes, parts = len(sizes), [n // patch_size for n in sizes]
  split = [x for n in parts for x in (n, patch_size)]
  # The numbers of the patches go before the places in a patch.
  order = [*range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2)]
  grid = images.reshape(batch, *split, channels)
  grid = grid.transpose(0, *order, 2 * axes + 1)
  return grid.reshape(batch, math.prod(parts), patch_size**axes * channels)


def unpatchify(
  tokens: Array, patch_size: int, data_shape: tuple[int, ...]
) -> Array:
  """Join tokens [B, T, patch_size ** 2 * C] to images [B, H, W, C].

  Example:
    >>> import jax.numpy as jnp
    >>> tokens = jnp.array([[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]])
    >>> unpatchify(tokens, 2, (2, 4, 1))[0, 0, :, 0].tolist()
    [0.0, 1.0, 2.0, 3.0]
  """
  *sizes, channels = data_shape
  axes, parts = len(sizes), [n // patch_size for n in sizes]
  grid = tokens.reshape(-1, *parts, *(patch_size,) * axes, channels)
  order = [x for i in range(1, axes + 1) for x in (i, i + axes)]
  grid = grid.transpose(0, *order, 2 * axes + 1)
  return grid.reshape(-1, *data_shape)
