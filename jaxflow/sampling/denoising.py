"""Samplers that call a denoiser D(x, t), a network that predicts data.

DDIM, on any path, from t to s, with z unit noise:

  e = (x - alpha_t D) / sigma_t
  x <- alpha_s D + sqrt(sigma_s^2 - c^2) e + c z                          (1)
  c = eta sigma_s sqrt(1 - (alpha_t sigma_s / (alpha_s sigma_t))^2)

EDM, on the variance-exploding path, where t is the noise level:

  h = t (1 + gamma),   x <- x + sqrt(h^2 - t^2) s_noise z                 (2)
  d = (x - D(x, h)) / h,   x' = x + (s - h) d                             (3)
  x <- x + (s - h) / 2 (d + (x' - D(x', s)) / s),   not in the last step  (4)

References:
  Song, Meng, Ermon 2020 (arXiv:2010.02502), eq. 12 and 16; Karras et al. 2022
  (arXiv:2206.00364), algorithm 2.
"""

import dataclasses
import math

import jax.numpy as jnp

from jaxflow import paths
from jaxflow.options import Amount, Limit, Share
from jaxflow.paths import Path
from jaxflow.sampling.steps import Steps, scan, step_noise_of


class Denoising(Steps):
  """A sampler that applies a network which predicts data, at s == t."""

  def num_steps(self, nfe: int) -> int:
    """Return how many steps make `nfe` calls; ValueError if no number does."""
    return nfe


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDIM(Denoising):
  """DDIM, eq. (1): order 1, one call a step.

  The grid may start where alpha = 0 and end where sigma = 0.

  Attributes:
    eta: 0 is the deterministic step along the probability-flow ODE, 1 the
      ancestral one.

  Example:
    >>> import jax
    >>> zero = lambda xt, t, s, cond: 0 * xt
    >>> DDIM()(zero, jnp.ones((1, 1)), jnp.array([1.0, 0.5]),
    ...        path=paths.Linear(), key=jax.random.key(0)).tolist()
    [[0.5]]
  """

  eta: Share = 0.0

  def __post_init__(self) -> None:
    if not 0 <= self.eta <= 1:
      raise ValueError(f"eta {self.eta} is not in [0, 1]")

  def noises(self, steps: int) -> int:
    """Return how many arrays of unit noise so many steps draw."""
    return steps if self.eta > 0 else 0

  def _steps(self, denoise, x, times, path, key, step_noise):
    unit = step_noise_of(key, step_noise, x)

    def step(x, given):
      i, t, s = given
      alpha_t, sigma_t = path.alpha(t), path.sigma(t)
      alpha_s, sigma_s = path.alpha(s), path.sigma(s)
      data = denoise(x, t, t)
      estimate = (x - alpha_t * data) / sigma_t
      if self.eta == 0:
        return alpha_s * data + sigma_s * estimate, None
      share = 1 - (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2
      fresh = self.eta * sigma_s * jnp.sqrt(share)
      # A difference of squares could become negative by rounding.
      kept = sigma_s * jnp.sqrt(1 - self.eta**2 * share)
      return alpha_s * data + kept * estimate + fresh * unit(i), None

    index = jnp.arange(len(times) - 1)
    return scan(step, x, (index, times[:-1], times[1:]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class EDMHeun(Denoising):
  """Heun's method with churn, eq. (2) to (4): order 2, two calls a step.

  The last step, usually to t = 0 where (4) is 0 / 0, has one call.

  Attributes:
    churn: Noise put back over the whole grid; 0 is deterministic.
    s_min: No churn below this time.
    s_max: No churn above this time.
    s_noise: Scale of the noise put back.

  Example:
    >>> import jax
    >>> zero = lambda xt, t, s, cond: 0 * xt
    >>> EDMHeun()(
    ...     zero, jnp.ones((1, 1)), jnp.array([1.0, 0.5, 0.0]),
    ...     path=paths.VarianceExploding(), key=jax.random.key(0)).tolist()
    [[0.0]]
  """

  churn: Amount = 0.0
  s_min: Amount = 0.0
  s_max: Limit = math.inf
  s_noise: Amount = 1.0

  def num_steps(self, nfe: int) -> int:
    """Return n of the `2 n - 1` calls."""
    if nfe % 2 == 0:
      raise ValueError("n steps make 2 n - 1 calls: give an odd number")
    return (nfe + 1) // 2

  def noises(self, steps: int) -> int:
    """Return how many arrays of unit noise so many steps draw."""
    return steps if self.churn > 0 else 0

  def check_path(self, path: Path) -> None:
    """Raise ValueError unless t is the noise level."""
    if not isinstance(path, paths.VarianceExploding):
      raise ValueError(
        f"{type(path).__name__} is not the variance-exploding path: use "
        "another sampler"
      )

  def _steps(self, denoise, x, times, path, key, step_noise):
    unit = step_noise_of(key, step_noise, x)

    n = len(times) - 1
    most = min(self.churn / n, math.sqrt(2) - 1)

    def slope(x, t):
      return (x - denoise(x, t, t)) / t

    def euler(x, given):
      i, t, s = given
      if most > 0:
        churned = (self.s_min <= t) & (t <= self.s_max)
        raised = t * (1 + jnp.where(churned, most, 0))
        # Factors: equal squares need not cancel in a fused multiply-add.
        std = self.s_noise * jnp.sqrt((raised - t) * (raised + t))
        x, t = x + std * unit(i), raised
      first = slope(x, t)
      return x, t, first, x + (s - t) * first

    def heun(x, given):
      s = given[-1]
      x, t, first, after = euler(x, given)
      return x + (s - t) / 2 * (first + slope(after, s)), None

    given = (jnp.arange(n), times[:-1], times[1:])
    if n > 1:
      x = scan(heun, x, tuple(part[:-1] for part in given))
    return euler(x, tuple(part[-1] for part in given))[-1]
