"""Layers in NumPy, float64, as loops a reader can follow."""

import jax
import jax.numpy as jnp
import numpy as np


def randomised(init, scale=0.3, seed=7):
  """Random parameters in place of a network's own, zeros among them."""
  noise = np.random.default_rng(seed)
  return jax.tree.map(
    lambda p: jnp.asarray(scale * noise.standard_normal(p.shape), jnp.float32),
    jax.eval_shape(init, jax.random.key(0)),
  )


def wide(params):
  return jax.tree.map(lambda x: np.asarray(x, np.float64), params)


def linear(p, x):
  return x @ p["kernel"] + p["bias"]


def conv(p, x, stride=1):
  """Return a convolution whose output has ceil(size / stride) places a side."""
  kernel = p["kernel"]
  size = kernel.shape[0]
  batch, height, width, _ = x.shape
  rows, columns = -(-height // stride), -(-width // stride)
  out = np.zeros((batch, rows, columns, kernel.shape[-1]))
  # What the kernel overlaps outside is shared by both ends, the larger half
  # behind the image.
  top = max((rows - 1) * stride + size - height, 0) // 2
  left = max((columns - 1) * stride + size - width, 0) // 2
  for i in range(rows):
    for j in range(columns):
      for di in range(size):
        for dj in range(size):
          y, z = i * stride + di - top, j * stride + dj - left
          if 0 <= y < height and 0 <= z < width:
            out[:, i, j] += x[:, y, z] @ kernel[di, dj]
  return out + p["bias"]


def leaky(x):
  return np.where(x > 0, x, 0.2 * x)


def halve(x):
  """Pool the maximum of 2 x 2 pixels; drop an odd row or column."""
  height, width = (size // 2 * 2 for size in x.shape[1:3])
  x = x[:, :height, :width]
  corners = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
  return np.max(corners, axis=0)


def normalise(x, axes, eps=1e-6):
  x = x - x.mean(axes, keepdims=True)
  return x / np.sqrt((x * x).mean(axes, keepdims=True) + eps)


def group_norm(p, x, groups):
  """Each group of consecutive channels, over all places."""
  parts = np.split(x, groups, axis=-1)
  axes = tuple(range(1, x.ndim))
  x = np.concatenate([normalise(part, axes) for part in parts], axis=-1)
  return x * p["scale"] + p["bias"]
