"""Images as sequences of square patches, and back."""

from jaxflow.types import Array


def patchify(images: Array, patch_size: int) -> Array:
  """Cut images [B, H, W, C] into tokens [B, T, patch_size ** 2 * C].

  Tokens run row by row, and so do the pixels in a token.

  Example:
    >>> import jax.numpy as jnp
    >>> patchify(jnp.arange(8.0).reshape(1, 2, 4, 1), 2)[0, 0].tolist()
    [0.0, 1.0, 4.0, 5.0]
  """
  batch, height, width, channels = images.shape
  rows, columns = height // patch_size, width // patch_size
  grid = images.reshape(
    batch, rows, patch_size, columns, patch_size, channels
  ).transpose(0, 1, 3, 2, 4, 5)
  return grid.reshape(batch, rows * columns, patch_size**2 * channels)


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
  batch = tokens.shape[0]
  height, width, channels = data_shape
  rows, columns = height // patch_size, width // patch_size
  grid = tokens.reshape(
    batch, rows, columns, patch_size, patch_size, channels
  ).transpose(0, 1, 3, 2, 4, 5)
  return grid.reshape(batch, height, width, channels)
