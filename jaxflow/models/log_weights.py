"""Learned log-weights of times: a linear layer on a positional embedding.

  w(t) = <a, phi(t)> + b                                                  (1)
  w(t, s) = <a, phi(t)> + <a', phi(s)> + b                                (2)

phi holds cosines and sines of a time itself at geometric frequencies, as the
networks see their times; on the angular path t is the angle, which is what
Lu and Song embed (their c_noise is the identity). a, a' and b start at zero, so
that exp(w) = 1: the loss begins as it is without a weight.

References:
  Karras et al. 2023, EDM2 (arXiv:2312.02696), section 2.1 for the idea; Lu,
  Song 2024 (arXiv:2410.11081), section 4 for consistency models; Boffi et al.
  2025 (arXiv:2505.18825) for two times.
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
    apply: `apply(params, t [B]) -> w [B]`, float32; of two times
      `apply(params, t [B], s [B])`.
  """

  init: Callable[[Array], PyTree]
  apply: Callable[..., Array]


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
  return _linear(channels, "kernel")


def pair_log_weight(*, channels: Count = 128) -> LogWeight:
  """Make the log-weight of eq. (2); it is 0 at its initial parameters.

  Args:
    channels: Number of cosines and sines of each time together.

  Raises:
    UsageError: If the number is not even, or below 2.

  Example:
    >>> import jax
    >>> weight = pair_log_weight(channels=2)
    >>> params = weight.init(jax.random.key(0))
    >>> ones = params | {"end": jnp.ones(2)}
    >>> weight.apply(ones, jnp.array([0.7]), jnp.zeros(1)).tolist()
    [1.0]
  """
  return _linear(channels, "start", "end")


def _linear(channels: int, *kernels: str) -> LogWeight:
  """Return the sum of a linear function of each time's embedding."""
  checks.even(channels=channels)

  def init(key: Array) -> PyTree:
    del key
    made = {name: jnp.zeros((channels,), jnp.float32) for name in kernels}
    return made | {"bias": jnp.zeros((), jnp.float32)}

  def apply(params: PyTree, *times: Array) -> Array:
    w = params["bias"]
    for name, t in zip(kernels, times, strict=True):
      w = w + sinusoidal(t, channels) @ params[name]
    return w

  return LogWeight(init, apply)
