"""Samplers that apply a flow map Phi over a decreasing grid of times.

  Jumps        x <- Phi(x, t, t')                                         (1)
  Consistency  x <- Phi(x, t, t_end), then renoised to t'                 (2)
  Gamma        s = sqrt(1 - gamma^2) (t' - t_end) + t_end
               x <- Phi(x, t, s), then renoised from s to t'              (3)

t_end is the last time of the grid; (3) is (1) at gamma = 0, (2) at gamma = 1.

References:
  Song et al. 2023 (arXiv:2303.01469), algorithm 1; Kim et al. 2023
  (arXiv:2310.02279), algorithm 3 for gamma; Zhou et al. 2025
  (arXiv:2503.07565) for pushforward (1) and restart (2).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxflow import paths
from jaxflow.options import Positive, Share
from jaxflow.paths import Path, expand
from jaxflow.sampling.steps import (
  Call,
  Steps,
  bind,
  check_grid,
  scan,
  step_noise_of,
)
from jaxflow.types import Array, FlowMap, PyTree


def sample(
  flow_map: FlowMap, noise: Array, times: Array, cond: PyTree = None
) -> Array:
  """Carry noise to data by `len(times) - 1` calls of the flow map, eq. (1).

  The arguments are those of all samplers (`jaxflow.sampling`).

  Example:
    >>> half = lambda xt, t, s, cond: xt / 2
    >>> sample(half, jnp.ones((1, 1)), jnp.array([1.0, 0.5, 0.0])).tolist()
    [[0.25]]
  """
  check_grid(times)
  return _jump_all(bind(flow_map, cond), noise, paths.as_times(times, noise))


def _jump_all(jump: Call, x: Array, times: Array) -> Array:
  def step(x, ends):
    return jump(x, *ends), None

  return scan(step, x, (times[:-1], times[1:]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Jumps(Steps):
  """Jump from time to time, eq. (1), as `sample` does: deterministic."""

  def _steps(self, jump, x, times, path, key, step_noise):
    return _jump_all(jump, x, times)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Consistency(Steps):
  """Jump to the end, renoise to the next time, jump again, eq. (2).

  The flow map is called for no other s than the last time of the grid.

  Attributes:
    clip: If given, every jump ends in `[-clip, clip]`.
    ends_on_data: Renoise the result of a jump as data (a denoiser, the restart
      of IMM), not as a point at the last time.

  Example:
    >>> to_zero = lambda xt, t, s, cond: 0 * xt
    >>> Consistency()(to_zero, jnp.ones((1, 1)), jnp.array([1.0, 0.5, 0.0]),
    ...               path=paths.Linear(), key=jax.random.key(0)).tolist()
    [[0.0]]
  """

  clip: Positive | None = None
  ends_on_data: bool = False

  def noises(self, steps: int) -> int:
    """Return how many arrays of unit noise so many steps draw."""
    return steps - 1

  def _steps(self, jump, x, times, path, key, step_noise):
    clip = self.clip

    def to_end(x, t):
      data = jump(x, t, times[-1])
      return data if clip is None else jnp.clip(data, -clip, clip)

    def step(data, given):
      t, unit = given
      if self.ends_on_data:
        x = paths.interpolate(path, data, unit, t)
      else:
        x = renoise(path, data, unit, t, times[-1])
      return to_end(x, t), None

    first = to_end(x, times[0])
    if len(times) == 2:
      return first
    if step_noise is None:
      draw = step_noise_of(key, None, x)
      step_noise = jax.vmap(draw)(jnp.arange(len(times) - 2))
    return jax.lax.scan(step, first, (times[1:-1], step_noise))[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gamma(Steps):
  """Jump beyond the next time and renoise back to it, eq. (3).

  The flow map is called for any s of the grid's interval.

  Attributes:
    gamma: From 0, deterministic, to 1, all the way to the end.

  Example:
    >>> half = lambda xt, t, s, cond: xt / 2
    >>> Gamma(gamma=0.0)(half, jnp.ones((1, 1)), jnp.array([1.0, 0.5, 0.0]),
    ...                  path=paths.Linear(), key=jax.random.key(0)).tolist()
    [[0.25]]
  """

  gamma: Share = 0.0

  def __post_init__(self) -> None:
    if not 0 <= self.gamma <= 1:
      raise ValueError(f"gamma {self.gamma} is not in [0, 1]")

  def noises(self, steps: int) -> int:
    """Return how many arrays of unit noise so many steps draw."""
    return steps if self.gamma > 0 and steps > 1 else 0

  def _steps(self, jump, x, times, path, key, step_noise):
    if self.gamma == 0 or len(times) == 2:
      return _jump_all(jump, x, times)
    unit = step_noise_of(key, step_noise, x)
    keep = math.sqrt(1 - self.gamma**2)
    # A weighted mean, exact for gamma = 1; the last jump must end on the grid,
    # or it would be renoised by a rounding error.
    goals = (keep * times[1:] + (1 - keep) * times[-1]).at[-1].set(times[-1])

    def step(x, given):
      i, t, s, after = given
      return renoise(path, jump(x, t, s), unit(i), after, s), None

    index = jnp.arange(len(times) - 1)
    return scan(step, x, (index, times[:-1], goals, times[1:]))


def renoise(path: Path, data: Array, noise: Array, t: Array, s: Array) -> Array:
  """Add noise to a point at time s, so that it is one of time t >= s.

  `(alpha_t / alpha_s) x + sqrt(sigma_t^2 - (alpha_t sigma_s / alpha_s)^2) z`:
  on the EDM path `x + sqrt(t^2 - t_min^2) z`, and `interpolate` where
  sigma_s = 0. `data` `[B, ...]` are points at s, `noise` is unit noise; t and s
  are scalars or `[B]`.

  Example:
    >>> x = renoise(paths.VarianceExploding(), jnp.zeros((1, 1)),
    ...             jnp.ones((1, 1)), jnp.array(0.5), jnp.array(0.3))
    >>> round(float(x[0, 0]), 6)
    0.4
  """
  ratio = path.alpha(t) / path.alpha(s)
  # Factors, because a fused multiply-add may find a difference of equal squares
  # below zero.
  high, low = path.sigma(t), ratio * path.sigma(s)
  std = jnp.sqrt((high - low) * (high + low))
  return expand(ratio, data) * data + expand(std, data) * noise
