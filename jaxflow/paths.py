r"""Paths that join data (t = t_min) and noise (t = t_max).

A path is a pair of coefficients. With `noise ~ N(0, I)`,

  xt = alpha(t) data + sigma(t) noise                                     (1)
  velocity = d xt / dt = alpha'(t) data + sigma'(t) noise                 (2)

The derivatives in (2) come from `jax.jvp`, so a new path needs only `alpha`
and `sigma`. Data and noise are `[B, ...]`, the noise of unit variance; times t
are `[B]`, in `[path.t_min, path.t_max]`.

References:
  Albergo, Boffi, Vanden-Eijnden 2023, Stochastic Interpolants
  (arXiv:2303.08797), section 2; Karras et al. 2022 (arXiv:2206.00364), table 1;
  Song et al. 2021 (arXiv:2011.13456), eq. 33 for the variance-preserving path.
"""

import dataclasses
import functools
import math
from typing import Annotated, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow.options import Above, Amount, Count, End, Positive, PositiveShare
from jaxflow.types import Array

__all__ = [
  "Coefficients",
  "Discrete",
  "Linear",
  "Path",
  "Trigonometric",
  "VarianceExploding",
  "VariancePreserving",
  "as_times",
  "coefficients",
  "expand",
  "half_g2",
  "interpolate",
  "log_snr",
  "noise_std",
  "standard_normal",
  "start",
  "velocity",
]


@runtime_checkable
class Path(Protocol):
  """Protocol of paths: coefficients of data and noise on `[t_min, t_max]`."""

  @property
  def t_min(self) -> float:
    """The time of data."""
    ...

  @property
  def t_max(self) -> float:
    """The time of noise."""
    ...

  def alpha(self, t: Array) -> Array:
    """Return the coefficient of the data at times `t` [...]."""
    ...

  def sigma(self, t: Array) -> Array:
    """Return the coefficient of the noise at times `t` [...]."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear:
  """The straight line: `alpha = 1 - t`, `sigma = noise_std t`, t in [0, 1].

  `noise_std` is the standard deviation of the noise in data units. Methods that
  scale noise like the data set it to the data's standard deviation.
  """

  t_min: Amount = 0.0
  t_max: Annotated[PositiveShare, Above("t_min")] = 1.0
  noise_std: Positive = 1.0

  def alpha(self, t: Array) -> Array:
    """Return `1 - t`."""
    return 1 - t

  def sigma(self, t: Array) -> Array:
    """Return `noise_std t`."""
    return self.noise_std * t


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trigonometric:
  """The quarter circle: `alpha^2 + (sigma / noise_std)^2 = 1`, t in [0, t_max].

  `t_max = 1` is the generalised variance-preserving path of SiT;
  `t_max = pi / 2` makes t the angle of TrigFlow, which scales noise like the
  data: there `noise_std` is the data's standard deviation.
  """

  t_max: End = 1.0
  t_min: Amount = 0.0
  noise_std: Positive = 1.0

  def alpha(self, t: Array) -> Array:
    """Return `cos(pi t / (2 t_max))`, which is 0 at t_max in any precision."""
    # In float32 the cosine of pi / 2 is negative, and the noise level with it.
    return jnp.sin(math.pi / 2 * (1 - t / self.t_max))

  def sigma(self, t: Array) -> Array:
    """Return `noise_std sin(pi t / (2 t_max))`."""
    return self.noise_std * jnp.sin(math.pi / (2 * self.t_max) * t)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariancePreserving:
  """The diffusion with noise rate `b(t) = beta_min + (beta_max - beta_min) t`.

  The derivative of `sigma` is infinite at t = 0: sample t > 0.
  """

  beta_min: Amount = 0.1
  beta_max: Positive = 20.0
  t_min: Amount = 0.0
  t_max: End = 1.0

  def _log_alpha(self, t: Array) -> Array:
    slope = self.beta_max - self.beta_min
    return -0.5 * (self.beta_min * t + 0.5 * slope * t**2)

  def alpha(self, t: Array) -> Array:
    """Return `exp(-1/2 integral of b from 0 to t)`."""
    return jnp.exp(self._log_alpha(t))

  def sigma(self, t: Array) -> Array:
    """Return `sqrt(1 - alpha^2)`, exact also near t = 0."""
    return jnp.sqrt(-jnp.expm1(2 * self._log_alpha(t)))


Schedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Discrete:
  """The diffusion of `num_steps` steps k, variance-preserving; t is the step.

  With noise rates b_k, at whole t

    alpha(t)^2 = 1 - sigma(t)^2 = prod of 1 - b_k, k = 0, ..., t

  and between them the log signal-to-noise ratio is linear in t. The rates by
  `schedule`, with n = num_steps:

    linear              from beta_start to beta_end in equal steps
    scaled_linear       the same of their roots
    squaredcos_cap_v2   b_k = min(1 - f((k + 1) / n) / f(k / n), 0.999),
                        f(u) = cos(pi / 2 (u + 0.008) / 1.008)^2

  `zero_terminal_snr` moves alpha down so that it ends at 0 (Lin et al. 2023,
  arXiv:2305.08891, algorithm 1); here at a sixteenth of the value before, for
  a finite ratio. References: Ho et al. 2020 (arXiv:2006.11239), eq. 4; Nichol,
  Dhariwal 2021 (arXiv:2102.09672), eq. 17; Rombach et al. 2021
  (arXiv:2112.10752) for the roots.
  """

  schedule: Schedule = "linear"
  num_steps: Count = 1000
  beta_start: Positive = 1e-4
  beta_end: Positive = 0.02
  zero_terminal_snr: bool = False

  def __post_init__(self) -> None:
    if self.num_steps < 2:
      raise ValueError(f"num_steps={self.num_steps}: give 2 or more")
    if not 0 < self.beta_start <= self.beta_end < 1:
      raise ValueError(
        f"beta_start={self.beta_start}, beta_end={self.beta_end}: give two "
        "numbers from 0 to 1, the smaller one first"
      )
    _log_snrs(self)  # Raises if the schedule is unknown.

  @property
  def t_min(self) -> float:
    """The first step, 0."""
    return 0.0

  @property
  def t_max(self) -> float:
    """The last step."""
    return self.num_steps - 1.0

  def log_snr(self, t: Array) -> Array:
    """Return `2 ln(alpha / sigma)`."""
    known = jnp.asarray(_log_snrs(self), t.dtype)
    below = jnp.clip(jnp.floor(t), 0, self.num_steps - 2).astype(jnp.int32)
    low, high = known[below], known[below + 1]
    return low + (t - below.astype(t.dtype)) * (high - low)

  def time_of(self, log_snr: Array) -> Array:
    """Return the time of a log signal-to-noise ratio."""
    known = jnp.asarray(_log_snrs(self), log_snr.dtype)
    steps = jnp.arange(self.num_steps, dtype=log_snr.dtype)
    return jnp.interp(-log_snr, -known, steps)

  def alpha(self, t: Array) -> Array:
    """Return the root of the product of `1 - b_k`."""
    return jnp.exp(0.5 * jax.nn.log_sigmoid(self.log_snr(t)))

  def sigma(self, t: Array) -> Array:
    """Return `sqrt(1 - alpha^2)`."""
    return jnp.exp(0.5 * jax.nn.log_sigmoid(-self.log_snr(t)))


@functools.cache
def _log_snrs(path: Discrete) -> np.ndarray:
  """Return the log signal-to-noise ratio of every step, float64."""
  n, ends = path.num_steps, (path.beta_start, path.beta_end)
  if path.schedule == "linear":
    betas = np.linspace(ends[0], ends[1], n)
  elif path.schedule == "scaled_linear":
    betas = np.linspace(ends[0] ** 0.5, ends[1] ** 0.5, n) ** 2
  elif path.schedule == "squaredcos_cap_v2":
    f = np.cos(np.pi / 2 * (np.arange(n + 1) / n + 0.008) / 1.008) ** 2
    betas = np.minimum(1 - f[1:] / f[:-1], 0.999)
  else:
    raise ValueError(
      f"schedule={path.schedule!r} is unknown: give linear, scaled_linear or "
      "squaredcos_cap_v2"
    )
  log_alpha2 = np.cumsum(np.log1p(-betas))
  if path.zero_terminal_snr:
    roots = np.exp(log_alpha2 / 2)
    roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    roots[-1] = roots[-2] / 16
    log_alpha2 = 2 * np.log(roots)
  return log_alpha2 - np.log(-np.expm1(log_alpha2))


@dataclasses.dataclass(frozen=True, kw_only=True)
class VarianceExploding:
  """The EDM path: `alpha = 1`, `sigma = t`; t is the noise level."""

  t_min: Amount = 0.002
  t_max: End = 80.0

  def alpha(self, t: Array) -> Array:
    """Return 1."""
    return jnp.ones_like(t)

  def sigma(self, t: Array) -> Array:
    """Return `t`."""
    return t


class Coefficients(NamedTuple):
  """`alpha`, `sigma` and their derivatives by t, each with the shape of t."""

  alpha: Array
  sigma: Array
  d_alpha: Array
  d_sigma: Array


def coefficients(path: Path, t: Array) -> Coefficients:
  """Evaluate a path and its derivatives at t `[...]`.

  Example:
    >>> c = coefficients(Linear(), jnp.array([0.25]))
    >>> [float(x[0]) for x in c]
    [0.75, 0.25, -1.0, 1.0]
  """
  one = jnp.ones_like(t)
  alpha, d_alpha = jax.jvp(path.alpha, (t,), (one,))
  sigma, d_sigma = jax.jvp(path.sigma, (t,), (one,))
  return Coefficients(alpha, sigma, d_alpha, d_sigma)


def expand(x: Array, like: Array) -> Array:
  """Expand the shape of numbers `[B]`, so that they scale samples `[B, ...]`.

  Example:
    >>> expand(jnp.ones(3), like=jnp.ones((3, 8, 8, 1))).shape
    (3, 1, 1, 1)
  """
  return x.reshape(x.shape + (1,) * (like.ndim - x.ndim))


def as_times(times: jax.typing.ArrayLike, like: Array) -> Array:
  """Return times in the type of samples, in float32 at least.

  Example:
    >>> as_times(jnp.array([0.5]), like=jnp.ones((1, 2), jnp.bfloat16)).dtype
    dtype('float32')
  """
  return jnp.asarray(times, jnp.promote_types(like.dtype, jnp.float32))


def interpolate(path: Path, data: Array, noise: Array, t: Array) -> Array:
  """Compute the points `xt [B, ...]` between data and noise, eq. (1).

  Example:
    >>> data, noise, t = jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.array([0.25])
    >>> interpolate(Linear(), data, noise, t).tolist()
    [[0.25, 0.25]]
  """
  return (
    expand(path.alpha(t), data) * data + expand(path.sigma(t), data) * noise
  )


def velocity(path: Path, data: Array, noise: Array, t: Array) -> Array:
  """Compute `d xt / dt [B, ...]`, eq. (2), in data units per unit of t.

  Example:
    >>> data, noise, t = jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.array([0.25])
    >>> velocity(Linear(), data, noise, t).tolist()
    [[1.0, 1.0]]
  """
  c = coefficients(path, t)
  return expand(c.d_alpha, data) * data + expand(c.d_sigma, data) * noise


def log_snr(path: Path, t: Array) -> Array:
  """Return the log signal-to-noise ratio `2 ln(alpha / sigma)` at t `[...]`.

  Example:
    >>> float(log_snr(Linear(), jnp.array(0.5)))
    0.0
  """
  return 2 * (jnp.log(path.alpha(t)) - jnp.log(path.sigma(t)))


def noise_std(path: Path) -> float:
  """Return the standard deviation of a path's noise, 1 by default.

  Example:
    >>> noise_std(Linear(noise_std=0.5)), noise_std(VarianceExploding())
    (0.5, 1.0)
  """
  return getattr(path, "noise_std", 1.0)


def standard_normal(
  key: Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike
) -> Array:
  """Draw noise of mean 0 and variance 1, in float32 at least, as `dtype`.

  Draws in bfloat16 have the mean -0.012 and 128 values. Of images XLA's CPU
  compiler unrolls the generator in every axis: as a vector the same draws of
  [16, 32, 32, 4] compile in a fifth of the time (jax 0.10.2,
  findings/xla_cpu_generator_by_axes.sh).

  Example:
    >>> draws = standard_normal(jax.random.key(0), (8, 2), jnp.bfloat16)
    >>> draws.shape, draws.dtype.name
    ((8, 2), 'bfloat16')
  """
  wide = jnp.promote_types(dtype, jnp.float32)
  flat = (math.prod(shape),)
  return jax.random.normal(key, flat, wide).reshape(shape).astype(dtype)


def half_g2(path: Path, t: Array) -> Array:
  """Return half the squared diffusion coefficient at t `[...]`.

  It is `sigma sigma' - (alpha' / alpha) sigma^2`, the factor of the score in
  the probability-flow ODE (Song et al. 2021, eq. 13).

  Example:
    >>> float(half_g2(Linear(), jnp.array(0.5)))
    1.0
  """
  c = coefficients(path, t)
  return c.sigma * c.d_sigma - c.d_alpha / c.alpha * c.sigma**2


def start(path: Path, noise: Array) -> Array:
  """Scale unit noise `[B, ...]` to the start of sampling, `sigma(t_max) noise`.

  Example:
    >>> start(VarianceExploding(), jnp.ones((1, 2))).tolist()
    [[80.0, 80.0]]
  """
  return path.sigma(jnp.asarray(path.t_max, noise.dtype)) * noise
