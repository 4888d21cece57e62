"""Preprocessing of images for the networks of evaluation, by protocols.

Every protocol begins with the 8 bits of an image file, whatever made the image:

  x8 = floor(clip(127.5 x + 128, 0, 255))                                  (1)

which is how EDM writes its samples. Then the image is resized bilinearly,
without a filter against aliasing: pixel i of n_out is read at

  (i + 1/2) n_in / n_out - 1/2      half-pixel centres                     (2)
  i n_in / n_out                    TensorFlow 1's first definition        (3)

clamped to the image, and scaled to (x - shift) / scale. Resizing is linear and
works on rows and columns alike: it is a product with a matrix on either side.

| protocol | side | centres | shift | scale | as |
|---|---|---|---|---|---|
| adm | 299 | (3) | 128 | 128 | the graph of the first FID, of ADM and EDM |
| pytorch_fid | 299 | (2) | 127.5 | 127.5 | pytorch-fid |
| efficientnet_lite | 224 | (2) | 127 | 128 | how it was trained |
| native | as it is | | 128 | 128 | networks trained on the data set itself |

EfficientNet-Lite was trained on crops resized bicubically; images here are seen
whole.

References:
  Heusel et al. 2017 (arXiv:1706.08500); its graph is
  classify_image_graph_def.pb of inception-2015-12-05.tgz.
  Dhariwal, Nichol 2021 (arXiv:2105.05233), evaluations/evaluator.py.
  Karras et al. 2022 (arXiv:2206.00364), generate.py for (1), fid.py.
  Seitzer 2020, pytorch-fid: F.interpolate with align_corners=False for (2).
  Parmar et al. 2021 (arXiv:2104.11222) for how much the choice matters.
  EfficientNet-Lite (tensorflow/tpu), lite/efficientnet_lite_builder.py.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow.errors import UsageError
from jaxflow.types import Array

# Numbers are compared between machines: no product may be rounded to 16 bits.
PRECISION = jax.lax.Precision.HIGHEST


@dataclass(frozen=True, kw_only=True)
class Protocol:
  """A row of the table above; `half_pixel` means (2), else it is (3)."""

  side: int | None
  half_pixel: bool = True
  shift: float
  scale: float


PROTOCOLS = {
  "adm": Protocol(side=299, half_pixel=False, shift=128.0, scale=128.0),
  "pytorch_fid": Protocol(side=299, shift=127.5, scale=127.5),
  "efficientnet_lite": Protocol(side=224, shift=127.0, scale=128.0),
  "native": Protocol(side=None, shift=128.0, scale=128.0),
}


def prepare(images: Array, protocol: Protocol) -> Array:
  """Return images [B, H, W, C] in [-1, 1] as a network's input, float32."""
  x = quantise(images)
  if protocol.side is not None:
    x = resize(x, protocol.side, half_pixel=protocol.half_pixel)
  return (x - protocol.shift) / protocol.scale


def quantise(images: Array) -> Array:
  """Compute eq. (1): whole numbers 0 to 255, float32, of images in [-1, 1].

  Example:
    >>> quantise(jnp.array([-1.5, -1.0, 0.0, 0.999, 1.0])).tolist()
    [0.0, 0.0, 128.0, 255.0, 255.0]
  """
  x = images.astype(jnp.float32)
  return jnp.floor(jnp.clip(127.5 * x + 128, 0, 255))


def resize(images: Array, side: int, *, half_pixel: bool) -> Array:
  """Resize images [B, H, W, C] to [B, side, side, C] by eq. (2) or (3).

  Example:
    >>> row = jnp.array([0.0, 8.0]).reshape(1, 1, 2, 1)
    >>> resize(row, 4, half_pixel=True)[0, 0, :, 0].tolist()
    [0.0, 2.0, 6.0, 8.0]
    >>> resize(row, 4, half_pixel=False)[0, 0, :, 0].tolist()
    [0.0, 4.0, 8.0, 8.0]
  """
  rows, columns = (
    _interpolation(size, side, half_pixel) for size in images.shape[1:3]
  )
  return jnp.einsum(
    "ri,bijc,sj->brsc", rows, images, columns, precision=PRECISION
  )


def rgb(images: Array, name: str) -> Array:
  """Return colour images [B, H, W, 3]; gray ones, [B, H, W, 1], are repeated.

  Raises UsageError, with the name of the network, if they are neither.
  """
  if images.ndim != 4 or images.shape[3] not in (1, 3):
    raise UsageError(
      f"data_shape={images.shape[1:]}: {name} sees images (height, width, 3), "
      "or gray ones, (height, width, 1)"
    )
  return jnp.broadcast_to(images, (*images.shape[:3], 3))


def _interpolation(before: int, after: int, half_pixel: bool) -> np.ndarray:
  """Return the matrix [after, before] of a linear interpolation."""
  place = np.arange(after) * (before / after)
  if half_pixel:
    place = (np.arange(after) + 0.5) * (before / after) - 0.5
  place = np.clip(place, 0, before - 1)
  low = np.floor(place).astype(int)
  high = np.minimum(low + 1, before - 1)
  share = place - low
  matrix = np.zeros((after, before))
  np.add.at(matrix, (np.arange(after), low), 1 - share)
  np.add.at(matrix, (np.arange(after), high), share)
  return matrix.astype(np.float32)
