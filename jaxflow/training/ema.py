"""Laws of the decay of an exponential moving average of the parameters.

  e <- beta_k e + (1 - beta_k) params,   k = 1, 2, ... the update's number  (1)

starting from the initial parameters. A law maps k to beta_k.

References:
  Song et al. 2021 (arXiv:2011.13456), code, for the count ramp; Karras et al.
  2022 (arXiv:2206.00364), appendix F.2; Karras et al. 2024, EDM2
  (arXiv:2312.02696), eq. 123 and 127; Song et al. 2023 (arXiv:2303.01469),
  appendix C and code, for the adaptive law of a target network.
"""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow.times import curricula
from jaxflow.types import Array, PyTree


class Law(Protocol):
  """The decay of update k."""

  def __call__(self, k: Array) -> Array:
    """Return beta_k, scalar, for the update's number k >= 1."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant:
  """`beta_k = decay`."""

  decay: float = 0.9999

  def __post_init__(self) -> None:
    _check_decay(self.decay)

  def __call__(self, k: Array) -> Array:
    """Return the decay."""
    return jnp.full(jnp.shape(k), self.decay)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CountRamp:
  """`beta_k = min(decay, (1 + k) / (10 + k))`."""

  decay: float = 0.9999

  def __post_init__(self) -> None:
    _check_decay(self.decay)

  def __call__(self, k: Array) -> Array:
    """Return the decay of update k."""
    return jnp.minimum(self.decay, (1.0 + k) / (10.0 + k))


@dataclasses.dataclass(frozen=True, kw_only=True)
class HalfLife:
  """Half-life in images, growing with the images seen, as in EDM."""

  images: float = 500_000
  batch_size: int = 128
  ramp: float = 0.05

  def __call__(self, k: Array) -> Array:
    """Return the decay of update k."""
    seen = (k - 1.0) * self.batch_size
    half_life = jnp.minimum(self.images, self.ramp * seen)
    return 0.5 ** (self.batch_size / jnp.maximum(half_life, 1e-8))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Power:
  """`beta_k = (1 - 1/k)^(gamma + 1)`: a fixed width relative to training.

  `width` is the standard deviation of the averaging profile over the length of
  training; 0.05 and 0.10 are usual.

  Example:
    >>> round(Power(width=0.1).gamma, 2)
    6.94
  """

  width: float = 0.1

  def __post_init__(self) -> None:
    # A uniform average (gamma 0) has the largest width, 12^-1/2.
    if not 0 < self.width < 0.2886:
      raise ValueError(f"width={self.width}: give a number in (0, 0.2886)")

  @property
  def gamma(self) -> float:
    """The exponent: the largest root of EDM2, eq. 123."""
    inverse = self.width**-2
    roots = np.roots([1, 7, 16 - inverse, 12 - inverse])
    return float(roots.real.max())

  def __call__(self, k: Array) -> Array:
    """Return the decay of update k."""
    return (1 - 1.0 / k) ** (self.gamma + 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adaptive:
  """`beta_k = decay^(start / (N - 1))`: a target that slows down.

  N is the number of grid points of the step that makes update k,
  `curricula.adaptive_points` with the same `start` and `end`.

  Attributes:
    decay: mu0; beta is `decay^start` at first, where N is 2. 0 makes the
      average the parameters themselves.
    start: s0 of the number of points.
    end: s1 of the number of points.
    steps: Length of training.

  Example:
    >>> round(Adaptive(decay=0.9, steps=10)(jnp.array(1)).item(), 6)
    0.81
  """

  decay: float = 0.9
  start: int = 2
  end: int = 150
  steps: int

  def __call__(self, k: Array) -> Array:
    """Return the decay of update k."""
    progress = jnp.minimum((k - 1.0) / self.steps, 1)
    points = curricula.adaptive_points(progress, start=self.start, end=self.end)
    return self.decay ** (self.start / (points - 1))


def share_of_start(law: Law, updates: int) -> float:
  """Return the weight that the first parameters still have in an average.

  Example:
    >>> round(share_of_start(Constant(decay=0.9999), 1000), 3)
    0.905
    >>> share_of_start(Power(), 1000)
    0.0
  """
  decays = law(jnp.arange(1, updates + 1))
  return float(np.prod(np.asarray(decays, np.float64)))


def _check_decay(decay: float) -> None:
  if not 0 <= decay <= 1:
    raise ValueError(f"decay={decay}: give a number from 0 to 1")


def update(average: PyTree, params: PyTree, decay: Array) -> PyTree:
  """Move an average towards the parameters, eq. (1)."""
  return jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, average, params)
