"""Likelihoods in nats, and in bits per dimension of quantised data."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.errors import UsageError
from jaxflow.metrics.estimates import Estimate, mean_of
from jaxflow.types import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Likelihood:
  """Negative log-likelihoods of N samples.

  Attributes:
    nll: negative log-likelihood of each sample in nats, [N].
    size: number of elements D of a sample.
  """

  nll: NDArray[np.float64]
  size: int

  @property
  def mean(self) -> Estimate:
    """The mean in nats; its error is over samples and probes."""
    return mean_of(self.nll)

  def bits_per_dimension(self, levels: int) -> Estimate:
    """Compute an upper bound of the bits per dimension of quantised data.

    The data x lie on equidistant levels from -1 to 1, with
    gap = 2 / (levels - 1). Uniform noise u of one gap makes them continuous
    (`dequantise`). P(x) is the model's mass in the cell of x. By Jensen's
    inequality,

      -log P(x) = -log(gap^D E p(x + u)) <= E[-log p(x + u)] - D log gap,

    so the bits per dimension are at most (nats / D - log gap) / log 2.

    Args:
      levels: number of levels, at least 2; 256 for 8 bits.

    Returns:
      The bound, with the error of the mean.

    Raises:
      UsageError: levels < 2.

    References:
      Theis, van den Oord, Bethge 2016, A note on the evaluation of generative
      models (arXiv:1511.01844), section 3.1.

    Example:
      >>> # Uniform on [-1, 1] with 2 levels: cells are twice as wide.
      >>> found = Likelihood(nll=np.full(3, math.log(4.0)), size=1)
      >>> round(found.bits_per_dimension(2).value, 6)
      1.0
    """
    gap = _gap(levels)
    return mean_of((self.nll / self.size - math.log(gap)) / math.log(2))


def dequantise(key: Array, data: ArrayLike, levels: int) -> Array:
  """Add uniform noise, one gap wide, to data on levels from -1 to 1.

  Args:
    key: Source of randomness.
    data: [N, ...].
    levels: Number of levels, at least 2.

  Returns:
    Data plus noise from U(-gap / 2, gap / 2), like `data`.

  Raises:
    UsageError: levels < 2.

  Example:
    >>> x = dequantise(jax.random.key(0), jnp.zeros((100, 2)), 3)
    >>> 0.45 < float(jnp.abs(x).max()) <= 0.5
    True
  """
  data = jnp.asarray(data)
  noise = jax.random.uniform(key, data.shape, data.dtype, -0.5, 0.5)
  return data + _gap(levels) * noise


def _gap(levels: int) -> float:
  """Return the distance between neighbouring levels from -1 to 1."""
  if levels < 2:
    raise UsageError(f"levels={levels}: give at least 2")
  return 2 / (levels - 1)
