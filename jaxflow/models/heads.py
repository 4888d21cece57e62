"""Heads for further predictions, behind the shared blocks of a network.

References:
  Geng et al., 2025, arXiv:2512.02012: heads of several blocks each.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from jaxflow.models.blocks import Blocks
from jaxflow.models.transformer import (
  Modulation,
  TokenLinear,
  layer_norm,
  modulate,
)
from jaxflow.types import Array


class Head(nnx.Module):
  """Blocks of its own, or none, and an output layer that starts at zero."""

  def __init__(
    self, blocks: Blocks | None, width: int, pixels: int, *, rngs: nnx.Rngs
  ):
    self.blocks = blocks
    self.norm = layer_norm(width, jnp.float32, rngs)
    self.modulation = Modulation(width, 2, dtype=jnp.float32, rngs=rngs)
    self.output = TokenLinear(
      width, pixels, kernel_init=nnx.initializers.zeros, rngs=rngs
    )

  def __call__(self, x: Array, c: Array, key: Array | None) -> Array:
    """Return the patches [B, T, pixels] of tokens [B, T, width], float32."""
    if self.blocks is not None:
      x = self.blocks(x, c, key)
    return project(self, x, c)


def project(module: Any, x: Array, c: Array) -> Array:
  """Apply the norm, modulation and output layer of a module to tokens."""
  shift, scale = module.modulation(c)
  return module.output(modulate(module.norm(x), shift, scale))
