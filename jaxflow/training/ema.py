"""Laws of the decay of an exponential moving average of the parameters.

  e <- beta_k e + (1 - beta_k) params,   k = 1, 2, ... the update's number  (1)

starting from the initial parameters. A law maps k to beta_k, and to its gain
1 - beta_k, of which float32 would lose digits if beta_k were subtracted from 1.

A gain below 1e-4 moves an average by less than a unit in its last place, and
rounding to nearest would drop the move, at every update. So the sum is rounded
up or down, in turns: up where the part that does not fit is above the threshold

  frac(k phi),   phi the golden ratio,                                    (2)

in units of the last place. The thresholds of any n updates in a row fill (0, 1)
evenly, so moves add up to within a few units in the last place. They depend on
k alone: no memory is needed, and resumed runs have the same bits.

References:
  Song et al. 2021 (arXiv:2011.13456), code, for the count ramp; Karras et al.
  2022 (arXiv:2206.00364), appendix F.2; Karras et al. 2024, EDM2
  (arXiv:2312.02696), eq. 123 and 127; Song et al. 2023 (arXiv:2303.01469),
  appendix C and code, for the adaptive law of a target network.
"""

import abc
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow.options import BelowOne, Count, Positive
from jaxflow.times import curricula
from jaxflow.types import Array, PyTree

# The fraction of the golden ratio, in units of 2^-32.
_GOLDEN = 2654435769


class Law(abc.ABC):
  """The decay of update k."""

  @abc.abstractmethod
  def gain(self, k: Array) -> Array:
    """Return 1 - beta_k, scalar, for the update's number k >= 1."""

  def __call__(self, k: Array) -> Array:
    """Return beta_k."""
    return 1 - self.gain(k)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant(Law):
  """`beta_k = decay`."""

  decay: BelowOne = 0.9999

  def __post_init__(self) -> None:
    _check_decay(self.decay)

  def gain(self, k: Array) -> Array:
    """Return 1 - decay."""
    return jnp.full(jnp.shape(k), 1 - self.decay)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CountRamp(Law):
  """`beta_k = min(decay, (1 + k) / (10 + k))`."""

  decay: BelowOne = 0.9999

  def __post_init__(self) -> None:
    _check_decay(self.decay)

  def gain(self, k: Array) -> Array:
    """Return 1 - beta_k."""
    return jnp.maximum(1 - self.decay, 9 / (10.0 + k))


@dataclasses.dataclass(frozen=True, kw_only=True)
class HalfLife(Law):
  """Half-life in images, growing with the images seen, as in EDM."""

  images: Positive = 500_000
  batch_size: Count = 128
  ramp: Positive = 0.05

  def gain(self, k: Array) -> Array:
    """Return 1 - beta_k."""
    seen = (k - 1.0) * self.batch_size
    half_life = jnp.minimum(self.images, self.ramp * seen)
    halvings = self.batch_size / jnp.maximum(half_life, 1e-8)
    return -jnp.expm1(-math.log(2) * halvings)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Power(Law):
  """`beta_k = (1 - 1/k)^(gamma + 1)`: a fixed width relative to training.

  `width` is the standard deviation of the averaging profile over the length of
  training; 0.05 and 0.10 are usual.

  Example:
    >>> round(Power(width=0.1).gamma, 2)
    6.94
  """

  width: Positive = 0.1

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

  def gain(self, k: Array) -> Array:
    """Return 1 - beta_k."""
    return -jnp.expm1((self.gamma + 1) * jnp.log1p(-1.0 / k))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adaptive(Law):
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

  decay: BelowOne = 0.9
  start: Count = 2
  end: Count = 150
  steps: Count

  def gain(self, k: Array) -> Array:
    """Return 1 - beta_k."""
    progress = jnp.minimum((k - 1.0) / self.steps, 1)
    points = curricula.adaptive_points(progress, start=self.start, end=self.end)
    log_decay = math.log(self.decay) if self.decay else -math.inf
    return -jnp.expm1(log_decay * self.start / (points - 1))


def share_of_start(law: Law, updates: int) -> float:
  """Return the weight that the first parameters still have in an average.

  Example:
    >>> round(share_of_start(Constant(decay=0.9999), 1000), 3)
    0.905
    >>> share_of_start(Power(), 1000)
    0.0
  """
  # As one program: sampling waits for it.
  gains = jax.jit(law.gain)(np.arange(1, updates + 1))
  return float(np.prod(1 - np.asarray(gains, np.float64)))


def _check_decay(decay: float) -> None:
  if not 0 <= decay <= 1:
    raise ValueError(f"decay={decay}: give a number from 0 to 1")


def update(average: PyTree, params: PyTree, law: Law, k: Array) -> PyTree:
  """Move an average towards the parameters, update k of eq. (1) and (2)."""
  gain = law.gain(k)
  near_end = gain > 0.5
  share = jnp.where(near_end, 1 - gain, gain)
  turn = jnp.asarray(k, jnp.uint32) * jnp.uint32(_GOLDEN)
  threshold = turn.astype(jnp.float32) * 2.0**-32

  def moved(e, p):
    # From the nearer end, so that gains of 0 and 1 give an end itself.
    start, end = jnp.where(near_end, p, e), jnp.where(near_end, e, p)
    move = share.astype(e.dtype) * (end - start)
    total = start + move
    # What rounding has taken from the sum, exactly (Knuth).
    moved_by = total - start
    lost = (start - (total - moved_by)) + (move - moved_by)
    next_to = jnp.nextafter(total, jnp.copysign(jnp.inf, lost).astype(e.dtype))
    up = jnp.abs(lost) > threshold.astype(e.dtype) * jnp.abs(next_to - total)
    return jnp.where(up, next_to, total)

  return jax.tree.map(moved, average, params)
