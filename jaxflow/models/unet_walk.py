"""The walk over encoder and decoder that all U-Nets of images share.

Every step of the encoder leaves its images for the decoder, whose joining steps
take them, the last ones first.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxflow.models import checks
from jaxflow.types import Array, PyTree

Keys = Iterator[Array | None]


@dataclasses.dataclass(frozen=True)
class Step:
  """One step of the walk.

  Attributes:
    module: The name of the module that takes it.
    block: Which of the module's blocks it is, where it has several; None where
      it is none of them.
    joins: Whether it sees the images of a step of the encoder too.
    shown: Whether its images are among the network's activations.
  """

  module: str
  block: int | None = None
  joins: bool = False
  shown: bool = True


class ImageUNet(nnx.Module):
  """A U-Net over images [B, H, W, C].

  A network has `_embedding`, `_first`, `_last` and, where it differs, `_run`,
  `_see` and `_join`.

  Args:
    data_shape: Shape (H, W, C) of one image.
    heads: Number of predictions.
    dtype: The type of the blocks' arithmetic.
  """

  def __init__(self, data_shape: tuple[int, ...], heads: int, dtype: Any):
    self.data_shape = data_shape
    self.heads = heads
    self.dtype = dtype

  def walks(
    self, encoder: list[Step], decoder: list[Step], keys: int | None = None
  ) -> None:
    """Set the steps; `keys` is how many drop units, None for all of them."""
    self.encoder: tuple[Step, ...] = tuple(encoder)
    self.decoder: tuple[Step, ...] = tuple(decoder)
    self.keys: int = len(encoder) + len(decoder) if keys is None else keys

  def __call__(
    self, xt: Array, t: Array, s: Array, cond: PyTree, key: Array | None
  ) -> Array | tuple[Array, ...]:
    """Return the prediction at `xt`, of its shape, float32; one a head."""
    x = self._activations(xt, t, s, cond, key)[-1].astype(jnp.float32)
    # A learned variance stands behind the channels of the image.
    predictions = tuple(
      head[..., : self.data_shape[2]]
      for head in jnp.split(self._last(x), self.heads, axis=-1)
    )
    return predictions if self.heads > 1 else predictions[0]

  def hidden(
    self, xt: Array, t: Array, s: Array, cond: PyTree
  ) -> tuple[Array, ...]:
    """Return the images [B, h, w, c] after every block."""
    return tuple(self._activations(xt, t, s, cond, None))

  def _activations(
    self, xt: Array, t: Array, s: Array, cond: PyTree, key: Array | None
  ) -> list[Array]:
    checks.shape(xt, self.data_shape)
    e = self._embedding(t, s, cond).astype(self.dtype)
    keys: Keys = iter(
      [None] * self.keys
      if key is None
      else list(jax.random.split(key, self.keys))
    )
    image = xt.astype(self.dtype)
    x = self._first(image)
    skips, outputs = [x], []
    for step in self.encoder:
      x = self._run(step, x, e, keys)
      x, image = self._see(step, x, image)
      skips.append(x)
      outputs += [x] if step.shown else []
    for step in self.decoder:
      x = self._join(x, skips.pop()) if step.joins else x
      x = self._run(step, x, e, keys)
      outputs += [x] if step.shown else []
    return outputs

  def _embedding(self, t: Array, s: Array, cond: PyTree) -> Array:
    """Return what conditions the blocks [B, features]."""
    raise NotImplementedError

  def _first(self, image: Array) -> Array:
    """Return the images that the first step takes."""
    raise NotImplementedError

  def _last(self, x: Array) -> Array:
    """Return the channels of all heads, of images [B, H, W, width]."""
    raise NotImplementedError

  def _run(self, step: Step, x: Array, e: Array, keys: Keys) -> Array:
    """Return the images behind a step."""
    return getattr(self, step.module)(x, e, next(keys))

  def _see(self, step: Step, x: Array, image: Array) -> tuple[Array, Array]:
    """Return the images behind a step, and the image that later steps see."""
    del step
    return x, image

  def _join(self, x: Array, skip: Array) -> Array:
    """Return images of both channels."""
    return jnp.concatenate([x, skip], axis=-1)
