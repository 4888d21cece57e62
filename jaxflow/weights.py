"""Distances between samples and weights of times.

A distance maps two batches `[B, ...]` to `[B]`; a weight maps a path and times
t, s `[B]` to `[B]`. Sums and means run over the elements of one sample.

References:
  Ma et al. 2024, SiT (arXiv:2401.08740), appendix; Salimans, Ho 2022
  (arXiv:2202.00512), section 4; Song et al. 2023 (arXiv:2303.01469), section 5;
  Song, Dhariwal 2023 (arXiv:2310.14189), eq. 8 for the pseudo-Huber distance;
  Geng et al. 2025 (arXiv:2505.13447), section 4.3 for the adaptive weight;
  Karras et al. 2023, EDM2 (arXiv:2312.02696) for the learned one.
"""

import math
from typing import Literal, Protocol

import jax
import jax.numpy as jnp

from jaxflow import paths
from jaxflow.options import Amount, Positive
from jaxflow.paths import Path
from jaxflow.types import Array

__all__ = [
  "Distance",
  "LogWeight",
  "PairLogWeight",
  "Perceptual",
  "Reduction",
  "Weight",
  "adaptive",
  "clip_norm",
  "huber",
  "inverse_gap",
  "inverse_square",
  "karras",
  "l1",
  "l2",
  "l2_sum",
  "learned",
  "likelihood",
  "log_cauchy",
  "sample_mean",
  "sample_sum",
  "scaled_huber",
  "snr",
  "snr_plus_one",
  "squares",
  "truncated_snr",
  "uniform",
  "velocity",
]


class Distance(Protocol):
  """How far the samples of two batches are from one another."""

  def __call__(self, a: Array, b: Array, /) -> Array:
    """Return the distance of every pair of samples, `[B]`."""
    ...


class Perceptual(Distance, Protocol):
  """A distance of features instead of samples."""


class Weight(Protocol):
  """How much times t, s `[B]` on a path count."""

  def __call__(self, path: Path, t: Array, s: Array, /) -> Array:
    """Return the weights, `[B]`."""
    ...


class LogWeight(Protocol):
  """How much times `[B]` count, learned; the logarithm."""

  def __call__(self, t: Array, /) -> Array:
    """Return the log-weights, `[B]`."""
    ...


class PairLogWeight(Protocol):
  """How much pairs of times t, s `[B]` count, learned; the logarithm."""

  def __call__(self, t: Array, s: Array, /) -> Array:
    """Return the log-weights, `[B]`."""
    ...


# How a squared error of a sample is reduced over its elements.
Reduction = Literal["sum", "mean"]


def squares(reduction: Reduction) -> Distance:
  """Return `l2_sum` or `l2`, by how elements are reduced.

  Example:
    >>> squares("sum")(jnp.zeros((1, 4)), jnp.full((1, 4), 2.0)).tolist()
    [16.0]
  """
  if reduction not in ("sum", "mean"):
    raise ValueError(f"reduction={reduction!r}: give one of mean, sum")
  return l2_sum if reduction == "sum" else l2


def sample_mean(x: Array) -> Array:
  """Average over the elements of each sample, `[B, ...] -> [B]`.

  Example:
    >>> sample_mean(jnp.ones((2, 3, 3))).tolist()
    [1.0, 1.0]
  """
  return x.mean(axis=tuple(range(1, x.ndim)))


def sample_sum(x: Array) -> Array:
  """Sum over the elements of each sample, `[B, ...] -> [B]`.

  Example:
    >>> sample_sum(jnp.ones((2, 3, 3))).tolist()
    [9.0, 9.0]
  """
  return x.sum(axis=tuple(range(1, x.ndim)))


def l1(a: Array, b: Array) -> Array:
  """Return the mean absolute difference `[B]`.

  Example:
    >>> l1(jnp.zeros((1, 4)), jnp.full((1, 4), 2.0)).tolist()
    [2.0]
  """
  return sample_mean(jnp.abs(a - b))


def l2(a: Array, b: Array) -> Array:
  """Return the mean squared difference `[B]`.

  Example:
    >>> l2(jnp.zeros((1, 4)), jnp.full((1, 4), 2.0)).tolist()
    [4.0]
  """
  return sample_mean((a - b) ** 2)


def l2_sum(a: Array, b: Array) -> Array:
  """Return the summed squared difference `[B]`.

  Example:
    >>> l2_sum(jnp.zeros((1, 4)), jnp.full((1, 4), 2.0)).tolist()
    [16.0]
  """
  return sample_sum((a - b) ** 2)


def huber(c: Amount) -> Distance:
  """Make the pseudo-Huber distance `sqrt(||a - b||^2 + c^2) - c`.

  Args:
    c: Transition from the square to the norm, >= 0; 0 is the norm itself, with
      gradient 0 at a = b.

  Example:
    >>> huber(3.0)(jnp.zeros((1, 4)), jnp.full((1, 4), 2.0)).tolist()
    [2.0]
  """

  def distance(a, b):
    square = l2_sum(a, b) + c**2
    # The root has no derivative at 0: a NaN there would survive any factor.
    positive = square > 0
    root = jnp.sqrt(jnp.where(positive, square, 1))
    return jnp.where(positive, root, 0) - c

  return distance


def scaled_huber(scale: Positive = 0.00054) -> Distance:
  """Make the pseudo-Huber distance with `c = scale sqrt(d)`, in data units.

  d is the number of elements of a sample: c keeps its place relative to
  differences of the same size per element (Song, Dhariwal 2023, section 3.3).

  Example:
    >>> scaled_huber(1.5)(jnp.zeros((1, 4)), jnp.full((1, 4), 2.0)).tolist()
    [2.0]
  """
  return lambda a, b: huber(scale * math.sqrt(a[0].size))(a, b)


def clip_norm(x: Array, *, limit: float) -> tuple[Array, Array]:
  """Clip Euclidean norms of samples `[B, ...]`; also return the norms `[B]`.

  Args:
    x: The samples.
    limit: Largest norm; 0 disables clipping.

  Example:
    >>> x, norm = clip_norm(jnp.array([[3.0, 4.0], [0.0, 1.0]]), limit=1.0)
    >>> [[round(value, 6) for value in row] for row in x.tolist()]
    [[0.6, 0.8], [0.0, 1.0]]
  """
  norm = jnp.sqrt(sample_sum(x**2))
  if not limit:
    return x, norm
  factor = limit / jnp.maximum(norm, limit)
  return x * factor.reshape(-1, *(1,) * (x.ndim - 1)), norm


def adaptive(error: Array, *, power: float, eps: Array | float) -> Array:
  """Weight an error by its own size: `sg((error + eps)^-power) error`.

  At power 1 the value is always nearly 1, so log the raw error too.

  Args:
    error: Summed squared errors `[B]`, >= 0.
    power: 0 is the plain squared error, 1 the scale-free one.
    eps: Added to the error, in its units; a number or `[B]`.

  Example:
    >>> adaptive(jnp.array([3.0]), power=1.0, eps=1.0).tolist()
    [0.75]
  """
  return jax.lax.stop_gradient((error + eps) ** -power) * error


def learned(error: Array, log_weight: Array) -> Array:
  """Weight an error by a learned weight: `exp(w) error - w`.

  The minimum over w is at `w = -ln error`, so all errors get equal weight. The
  value may be negative.

  Args:
    error: Errors `[B]`, >= 0.
    log_weight: w, `[B]`, with parameters of its own.

  Example:
    >>> learned(jnp.array([3.0]), jnp.array([0.0])).tolist()
    [3.0]
  """
  return jnp.exp(log_weight) * error - log_weight


def log_cauchy(error: Array, *, log_weight: Array, eps: float) -> Array:
  """Weight an error by a learned weight and dampen it: `ln(e^w E + eps) - w`.

  It is computed as `ln(E + eps e^-w)`, whose derivative is no difference of
  almost equal numbers.

  Args:
    error: Errors `[B]`, >= 0.
    log_weight: w, `[B]`, with parameters of its own.
    eps: Added to the weighted error.

  References:
    Lee, Yu, Shin 2025 (arXiv:2510.24474).

  Example:
    >>> log_cauchy(jnp.array([0.0]), log_weight=jnp.array([0.5]), eps=1.0)
    Array([-0.5], dtype=float32)
  """
  return jnp.log(error + eps * jnp.exp(-log_weight))


def uniform(path: Path, t: Array, s: Array) -> Array:
  """Weigh all times equally, `[B]`.

  Example:
    >>> uniform(paths.Linear(), jnp.array([0.5]), jnp.array([0.0])).tolist()
    [1.0]
  """
  del path, s
  return jnp.ones_like(t)


def snr(path: Path, t: Array, s: Array) -> Array:
  """Weigh by the signal-to-noise ratio `(alpha / sigma)^2`, `[B]`.

  Example:
    >>> t = jnp.array([0.5])
    >>> snr(paths.VarianceExploding(), t, t).tolist()
    [4.0]
  """
  del s
  return (path.alpha(t) / path.sigma(t)) ** 2


def snr_plus_one(path: Path, t: Array, s: Array) -> Array:
  """Weigh by `SNR + 1`, `[B]`.

  Example:
    >>> t = jnp.array([0.5])
    >>> snr_plus_one(paths.VarianceExploding(), t, t).tolist()
    [5.0]
  """
  return snr(path, t, s) + 1


def truncated_snr(path: Path, t: Array, s: Array) -> Array:
  """Weigh by `max(SNR, 1)`, `[B]`.

  Example:
    >>> t = jnp.array([2.0])
    >>> truncated_snr(paths.VarianceExploding(), t, t).tolist()
    [1.0]
  """
  return jnp.maximum(snr(path, t, s), 1)


def karras(sigma_data: Positive = 0.5) -> Weight:
  """Make the weight `SNR + sigma_data^-2` of the EDM denoiser.

  Example:
    >>> t = jnp.array([0.5])
    >>> karras(0.5)(paths.VarianceExploding(), t, t).tolist()
    [8.0]
  """
  return lambda path, t, s: snr(path, t, s) + sigma_data**-2


def inverse_gap(path: Path, t: Array, s: Array) -> Array:
  """Weigh by `1 / (t - s)`, `[B]`; by 0 where s = t, whose target is trivial.

  Example:
    >>> inverse_gap(paths.Linear(), jnp.array([0.5]), jnp.array([0.0])).tolist()
    [2.0]
  """
  del path
  apart = t != s
  return jnp.where(apart, 1 / jnp.where(apart, t - s, 1), 0)


def inverse_square(path: Path, t: Array, s: Array) -> Array:
  """Weigh by `t^-2`: data errors in velocity units on the linear path, `[B]`.

  Example:
    >>> t = jnp.array([0.5])
    >>> inverse_square(paths.Linear(), t, t).tolist()
    [4.0]
  """
  del path, s
  return t**-2.0


def velocity(path: Path, t: Array, s: Array) -> Array:
  """Weigh noise or score losses like velocity losses: `(g^2 / (2 sigma))^2`.

  `g^2 / 2` is `paths.half_g2`, g the diffusion coefficient.

  Example:
    >>> t = jnp.array([0.5])
    >>> velocity(paths.VarianceExploding(), t, t).tolist()
    [1.0]
  """
  del s
  return (paths.half_g2(path, t) / path.sigma(t)) ** 2


def likelihood(path: Path, t: Array, s: Array) -> Array:
  """Weigh noise or score losses to bound the likelihood: `g^2 / (2 sigma^2)`.

  `g^2 / 2` is `paths.half_g2`, g the diffusion coefficient.

  Example:
    >>> t = jnp.array([0.5])
    >>> likelihood(paths.VarianceExploding(), t, t).tolist()
    [2.0]
  """
  del s
  return paths.half_g2(path, t) / path.sigma(t) ** 2
