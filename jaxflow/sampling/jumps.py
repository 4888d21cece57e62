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

from jaxflow import sampling
from jaxflow.paths import Path
from jaxflow.sampling.steps import scan, step_noise_of
from jaxflow.types import Array, FlowMap, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Jumps:
  """Jump from time to time, eq. (1): deterministic.

  Example:
    >>> from jaxflow.paths import Linear
    >>> half = lambda xt, t, s, cond: xt / 2
    >>> Jumps()(half, jnp.ones((1, 1)), jnp.array([1.0, 0.5, 0.0]),
    ...         path=Linear(), key=jax.random.key(0)).tolist()
    [[0.25]]
  """

  def __call__(
    self,
    flow_map: FlowMap,
    noise: Array,
    times: Array,
    cond: PyTree = None,
    *,
    path: Path,
    key: Array,
  ) -> Array:
    """Return samples `[B, ...]`; arguments as `sampling.sample`."""
    del path, key
    return sampling.sample(flow_map, noise, times, cond)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Consistency:
  """Jump to the end, renoise to the next time, jump again, eq. (2).

  Attributes:
    clip: If given, every jump ends in `[-clip, clip]`.
    ends_on_data: Renoise the result of a jump as data (a denoiser, the restart
      of IMM), not as a point at the last time.

  Example:
    >>> from jaxflow.paths import Linear
    >>> to_zero = lambda xt, t, s, cond: 0 * xt
    >>> Consistency()(to_zero, jnp.ones((1, 1)), jnp.array([1.0, 0.5, 0.0]),
    ...               path=Linear(), key=jax.random.key(0)).tolist()
    [[0.0]]
  """

  clip: float | None = None
  ends_on_data: bool = False

  def __call__(
    self,
    flow_map: FlowMap,
    noise: Array,
    times: Array,
    cond: PyTree = None,
    *,
    path: Path,
    key: Array,
    step_noise: Array | None = None,
  ) -> Array:
    """Return samples `[B, ...]`; arguments as `sampling.consistency_sample`."""
    if step_noise is None:
      draw = step_noise_of(key, None, noise)
      step_noise = jax.vmap(draw)(jnp.arange(len(times) - 2))
    return sampling.consistency_sample(
      flow_map,
      noise,
      times,
      cond,
      path=path,
      step_noise=step_noise,
      clip=self.clip,
      ends_on_data=self.ends_on_data,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gamma:
  """Jump beyond the next time and renoise back to it, eq. (3).

  Attributes:
    gamma: From 0, deterministic, to 1, all the way to the end.

  Example:
    >>> from jaxflow.paths import Linear
    >>> half = lambda xt, t, s, cond: xt / 2
    >>> Gamma(gamma=0.0)(half, jnp.ones((1, 1)), jnp.array([1.0, 0.5, 0.0]),
    ...                  path=Linear(), key=jax.random.key(0)).tolist()
    [[0.25]]
  """

  gamma: float = 0.0

  def __post_init__(self) -> None:
    if not 0 <= self.gamma <= 1:
      raise ValueError(f"gamma {self.gamma} is not in [0, 1]")

  def __call__(
    self,
    flow_map: FlowMap,
    noise: Array,
    times: Array,
    cond: PyTree = None,
    *,
    path: Path,
    key: Array,
    step_noise: Array | None = None,
  ) -> Array:
    """Return samples `[B, ...]`.

    Args:
      flow_map: The flow map, called for any s on the grid's interval.
      noise: Points at `times[0]`, `[B, ...]`.
      times: Decreasing grid `[n + 1]`; n calls.
      cond: The condition with leading axis B, or None.
      path: The path on which to renoise.
      key: Random key.
      step_noise: Unit noise `[n, B, ...]` instead of the key's; the last is
        not used.
    """
    sampling.check_grid(times)
    if self.gamma == 0 or len(times) == 2:
      return sampling.sample(flow_map, noise, times, cond)
    unit = step_noise_of(key, step_noise, noise)
    keep = math.sqrt(1 - self.gamma**2)
    # A weighted mean, exact for gamma = 1; the last jump must end on the grid,
    # or it would be renoised by a rounding error.
    goals = (keep * times[1:] + (1 - keep) * times[-1]).at[-1].set(times[-1])

    def step(x, given):
      i, t, s, after = given
      start, end = (jnp.broadcast_to(time, x.shape[:1]) for time in (t, s))
      x = flow_map(x, start, end, cond)
      return sampling.renoise(path, x, unit(i), after, s), None

    index = jnp.arange(len(times) - 1)
    return scan(step, noise, (index, times[:-1], goals, times[1:]))
