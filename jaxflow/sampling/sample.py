"""Sample by applying a flow map over a decreasing grid of times.

References:
  Song et al. 2023 (arXiv:2303.01469), algorithm 1, for multistep consistency
  sampling.
"""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from jaxflow.paths import Path, expand, interpolate, start
from jaxflow.types import Array, FlowMap, ModelFn, PyTree


class Sampler(Protocol):
  """Protocol of samplers: apply a flow map or a denoiser over a grid."""

  def __call__(
    self,
    function: FlowMap | ModelFn,
    noise: Array,
    times: Array,
    cond: PyTree = None,
    /,
    *,
    path: Path,
    key: Array,
  ) -> Array:
    """Return samples of the shape of `noise`."""
    ...


def sample(
  flow_map: FlowMap, noise: Array, times: Array, cond: PyTree = None
) -> Array:
  """Carry noise to data by `len(times) - 1` calls of the flow map.

  Args:
    flow_map: The flow map.
    noise: Points at `times[0]`, `[B, ...]`: `paths.start(path, unit_noise)`.
    times: Decreasing grid `[n + 1]` from `path.t_max` to `path.t_min`.
    cond: The condition with leading axis B, or None.

  Returns:
    Points at `times[-1]`, `[B, ...]`.

  Raises:
    ValueError: If the grid has fewer than two points.

  Example:
    >>> half = lambda xt, t, s, cond: xt / 2
    >>> sample(half, jnp.ones((1, 1)), jnp.array([1.0, 0.5, 0.0])).tolist()
    [[0.25]]
  """
  check_grid(times)
  if len(times) == 2:
    return flow_map(noise, *_rows(times, noise), cond)

  def step(x, interval):
    return flow_map(x, *_rows(interval, x), cond), None

  intervals = jnp.stack([times[:-1], times[1:]], axis=1)
  return jax.lax.scan(step, noise, intervals)[0]


def consistency_sample(
  flow_map: FlowMap,
  noise: Array,
  times: Array,
  cond: PyTree = None,
  *,
  path: Path,
  step_noise: Array,
  clip: float | None = None,
  ends_on_data: bool = False,
) -> Array:
  """Jump to data, renoise to the next time, jump again (algorithm 1).

  Args:
    flow_map: A flow map to `times[-1]`; it is called for no other s.
    noise: Points at `times[0]`, `[B, ...]`.
    times: Decreasing grid `[n + 1]`; n calls.
    cond: The condition with leading axis B, or None.
    path: The path on which to renoise.
    step_noise: Unit noise `[n - 1, B, ...]` of the n - 1 renoisings.
    clip: If given, every jump ends in `[-clip, clip]`.
    ends_on_data: Renoise what a jump returns as data, not as a point at
      `times[-1]`: for a flow map that is a denoiser.

  Returns:
    Samples at `times[-1]`, `[B, ...]`.

  Raises:
    ValueError: If the grid has fewer than two points.

  Example:
    >>> from jaxflow.paths import VarianceExploding
    >>> to_zero = lambda xt, t, s, cond: 0 * xt
    >>> x = consistency_sample(
    ...     to_zero, jnp.ones((1, 1)), jnp.array([1.0, 0.5, 0.0]),
    ...     path=VarianceExploding(t_min=0.0), step_noise=jnp.ones((1, 1, 1)))
    >>> x.tolist()
    [[0.0]]
  """
  check_grid(times)

  def jump(x, t):
    data = flow_map(x, *_rows(jnp.stack([t, times[-1]]), x), cond)
    return data if clip is None else jnp.clip(data, -clip, clip)

  def step(data, given):
    t, unit = given
    if ends_on_data:
      x = interpolate(path, data, unit, t)
    else:
      x = renoise(path, data, unit, t, times[-1])
    return jump(x, t), None

  first = jump(noise, times[0])
  if len(times) == 2:
    return first
  return jax.lax.scan(step, first, (times[1:-1], step_noise))[0]


def make_sampler(
  flow_map_of: Callable[[PyTree], FlowMap],
  *,
  sampler: Sampler,
  path: Path,
  times: Array,
) -> Callable[[PyTree, Array, Array, PyTree], Array]:
  """Make a jitted sampler; with two times it is one network call.

  Args:
    flow_map_of: Makes the flow map of the network's parameters.
    sampler: How the flow map is applied.
    path: The path.
    times: Decreasing grid `[n + 1]`.

  Returns:
    `(params, noise [B, ...], key, cond) -> samples [B, ...]`, with noise of
    unit variance; `key` serves the noise of the later steps of samplers that
    renoise.

  Example:
    >>> from jaxflow.paths import Linear
    >>> half = lambda params: lambda xt, t, s, cond: params * xt
    >>> once = make_sampler(
    ...     half, path=Linear(), times=jnp.array([1.0, 0.0]),
    ...     sampler=lambda f, x, times, cond, path, key: sample(f, x, times))
    >>> once(jnp.array(0.5), jnp.ones((1, 1)), jax.random.key(0), None).tolist()
    [[0.5]]
  """
  check_grid(times)

  @jax.jit
  def draw(params, noise, key, cond):
    return sampler(
      flow_map_of(params), start(path, noise), times, cond, path=path, key=key
    )

  return draw


def renoise(path: Path, data: Array, noise: Array, t: Array, s: Array) -> Array:
  """Add noise to a point at time s, so that it is one of time t >= s.

  `(alpha_t / alpha_s) x + sqrt(sigma_t^2 - (alpha_t sigma_s / alpha_s)^2) z`:
  on the EDM path `x + sqrt(t^2 - t_min^2) z`, and `interpolate` where
  sigma_s = 0.

  Args:
    path: The path.
    data: Points at s, `[B, ...]`.
    noise: Unit noise, the shape of `data`.
    t: Scalar or `[B]`.
    s: Like t, smaller.

  Returns:
    Points at t, `[B, ...]`.

  Example:
    >>> from jaxflow.paths import VarianceExploding
    >>> edm = VarianceExploding(t_min=0.3)
    >>> x = renoise(edm, jnp.zeros((1, 1)), jnp.ones((1, 1)),
    ...             jnp.array(0.5), jnp.array(0.3))
    >>> round(float(x[0, 0]), 6)
    0.4
  """
  ratio = path.alpha(t) / path.alpha(s)
  # Factors, because a fused multiply-add may find a difference of equal squares
  # below zero.
  high, low = path.sigma(t), ratio * path.sigma(s)
  std = jnp.sqrt((high - low) * (high + low))
  return expand(ratio, data) * data + expand(std, data) * noise


def _rows(interval: Array, x: Array) -> tuple[Array, Array]:
  """Broadcast the two ends of an interval to every row of the batch."""
  t = jnp.broadcast_to(interval[0], x.shape[:1])
  s = jnp.broadcast_to(interval[1], x.shape[:1])
  return t, s


def check_grid(times: Array) -> None:
  """Raise ValueError if a grid has fewer than two times.

  Example:
    >>> check_grid(jnp.ones(1))
    Traceback (most recent call last):
    ...
    ValueError: a grid of 1 times has no step: give at least two times
  """
  if len(times) < 2:
    raise ValueError(
      f"a grid of {len(times)} times has no step: give at least two times"
    )
