"""Learned log-weights of times: a linear layer on a positional embedding.

  w(t) = <a, phi(t)> + b                                                  (1)

phi holds cosines and sines of t itself at geometric frequencies, as the
networks see their times; on the angular path t is the angle, which is what
Lu and Song embed (their c_noise is the identity). a and b start at zero, so
that exp(w) = 1: the loss begins as it is without a weight.

References:
  Karras et al. 2023, EDM2 (arXiv:2312.02696), section 2.1 for the idea; Lu,
  Song 2024 (arXiv:2410.11081), section 4 for consistency models.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp

from jaxflow.models import checks
from jaxflow.models.embeddings import sinusoidal
from jaxflow.options import Count
from jaxflow.types import Array, PyTree


@dataclass(frozen=True)
class LogWeight:
  """A pair of pure functions.

  Attributes:
    init: `init(key) -> params`, a dict of float32 arrays.
    apply: `apply(params, t [B]) -> w [B]`, float32.
  """

  init: Callable[[Array], PyTree]
  apply: Callable[[PyTree, Array], Array]


def log_weight(*, channels: Count = 128) -> LogWeight:
  """Make the log-weight of eq. (1); it is 0 at its initial parameters.

  Args:
    channels: Number of cosines and sines of t together.

  Raises:
    UsageError: If the number is not even, or below 2.

  Example:
    >>> import jax
    >>> weight = log_weight(channels=4)
    >>> params = weight.init(jax.random.key(0))
    >>> weight.apply(params, jnp.array([0.1, 1.5])).tolist()
    [0.0, 0.0]
    >>> weight.apply(params | {"bias": jnp.ones(())}, jnp.zeros(1)).tolist()
    [1.0]
  """
  checks.even(channels=channels)

  def init(key: Array) -> PyTree:
    del key
    zeros = jnp.zeros((channels,), jnp.float32)
    return {"kernel": zeros, "bias": jnp.zeros((), jnp.float32)}

  def apply(params: PyTree, t: Array) -> Array:
    return sinusoidal(t, channels) @ params["kernel"] + params["bias"]

  return LogWeight(init, apply)
