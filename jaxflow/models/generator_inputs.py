"""What a generator without times sees: a guidance scale, discrete noise.

References:
  Deng et al., 2026, arXiv:2602.04770: drifting models.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxflow.errors import UsageError
from jaxflow.models.embeddings import TimeEmbedder
from jaxflow.models.layers import rms_norm
from jaxflow.types import Array, PyTree

# Values of noise that decide one label.
_VALUES = 4
# The scale's embedding is small beside those of labels, as published.
_SHARE = 0.02


class ScaleEmbedder(nnx.Module):
  """Embeds a guidance scale as vectors [B, width]; `omega` is the default."""

  def __init__(self, width: int, omega: float, *, rngs: nnx.Rngs):
    self.omega = omega
    self.embed: TimeEmbedder = TimeEmbedder(width, scale=1.0, rngs=rngs)
    self.norm: nnx.RMSNorm = rms_norm(width, jnp.float32, rngs)

  def __call__(self, cond: PyTree, batch: int) -> Array:
    """Return the embedding of the condition's "omega", or of the default."""
    given = cond.get("omega") if isinstance(cond, dict) else None
    omega = jnp.full((batch,), self.omega) if given is None else given
    return _SHARE * self.norm(self.embed(omega.astype(jnp.float32)))


class NoiseEmbedder(nnx.Module):
  """Embeds noise labels [B, count] as the sum of a row of each table."""

  def __init__(self, count: int, labels: int, width: int, *, rngs: nnx.Rngs):
    self.shape = (count, labels)
    init = nnx.initializers.normal(0.02)
    self.tables: nnx.Param[Any] = nnx.Param(
      init(rngs.params(), (count, labels, width), jnp.float32)
    )

  def __call__(self, xt: Array, cond: PyTree) -> Array:
    """Return the embedding [B, width] of the condition's "noise_labels".

    Without them the noise `xt` decides: see `noise_labels`.
    """
    given = cond.get("noise_labels") if isinstance(cond, dict) else None
    labels = noise_labels(xt, *self.shape) if given is None else given
    chosen = jax.nn.one_hot(labels, self.shape[1], dtype=jnp.float32)
    return jnp.einsum(
      "bnk,nkd->bd", chosen, self.tables[...], precision="highest"
    )


def noise_labels(noise: Array, count: int, labels: int) -> Array:
  """Return labels [B, count] that unit normal noise [B, ...] decides.

  A label is the sum of the normal distribution function at four values, modulo
  1, times the number of labels: it is uniform, labels are independent, and
  three of the values say nothing of it. So a sample depends on its noise alone.

  Example:
    >>> noise_labels(jnp.zeros((1, 2, 4)), 2, 64).tolist()
    [[0, 0]]
  """
  flat = noise.reshape(noise.shape[0], -1).astype(jnp.float32)
  if flat.shape[1] < count * _VALUES:
    raise UsageError(
      f"noise_labels={count}: {flat.shape[1]} values of noise are too few; "
      f"give at most {flat.shape[1] // _VALUES}"
    )
  values = flat[:, : count * _VALUES].reshape(-1, count, _VALUES)
  share = jax.scipy.stats.norm.cdf(values).sum(-1) % 1
  return jnp.minimum(jnp.floor(share * labels), labels - 1).astype(jnp.int32)
