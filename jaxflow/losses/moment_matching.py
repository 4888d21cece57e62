"""Inductive moment matching: jumps from two near times match in distribution.

Groups of M consecutive rows share times s <= r <= t. With the same noise at t
and r, and f the flow map,

  level = sigma / alpha,  level_r = level_t - (level_max - level_min) 2^-h,
  clipped to the levels of the path; r = max(min(r, t - gap), s)          (1)
  A = f(xt, t, s),  C = sg f(xr, r, s)                                    (2)
  k(a, b) = exp(-||a - b|| / (c_out d)),  ||.|| >= 1e-4                   (3)
  L = w(t) [mean k(A, A') + mean k(C, C') - 2 mean k(A, C)]               (4)

over all M x M pairs of a group: the squared maximum mean discrepancy of two
sets of M samples. c_out is the factor of the network's output in f, in units
of the data's standard deviation sd (the path's `noise_std`). Sampling at r = s
gives the induction its start: there C is a point of the path.

  w = 1/2 (-dlam/dt) sigmoid(q - lam) alpha^p / (alpha^2 + (sigma/sd)^2)  (5)

with lam the log-SNR on data / sd. Every row of a group reports the group's L.

References:
  Zhou, Ermon, Song 2025 (arXiv:2503.07565).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxflow import couplings, guidance, paths, predictions, times
from jaxflow.options import Amount, Count, Finite, LabelDropout
from jaxflow.types import (
  Array,
  Batch,
  FlowMap,
  JumpFn,
  LossOutput,
  ModelFn,
  PyTree,
)


def moment_matching_loss(
  model_fn: JumpFn,
  key: Array,
  batch: Batch,
  *,
  path: paths.Path,
  sample_times: times.PairSampler,
  flow_map: Callable[[ModelFn], FlowMap],
  group_size: Count = 4,
  halvings: Count = 12,
  gap: Amount = 0.0,
  middle_times: Callable[[Array, Array], Array] | None = None,
  weight_power: Finite = 2.0,
  weight_shift: Finite = 4.0,
  label_dropout: LabelDropout = 0.0,
  null_cond: PyTree = None,
) -> LossOutput:
  """Compute the moment matching loss of each row's group, eq. (4).

  Args:
    model_fn: A raw network goes through `predictions.normalized`.
    path: Its level must be finite at `t_max` (linear: t_max < 1).
    sample_times: Pairs (t, s); the first row of a group decides for the group.
    flow_map: `flow_maps.average_velocity` (linear path), `rotation` or
      `identity`; any that is affine in the network's output.
    group_size: M; it divides B.
    halvings: h of eq. (1): larger brings r closer to t.
    gap: The least t - r, in units of t, where s leaves room for it.
    middle_times: `(t [B], s [B]) -> r [B]` in place of eq. (1).
    weight_power: p of eq. (5).
    weight_shift: q of eq. (5).
    label_dropout: The same for A and C. Others: see `jaxflow.losses`.

  Example:
    >>> from jaxflow import flow_maps
    >>> net = lambda xt, t, s, cond: xt / t[:, None]     # exact for data = 0
    >>> pair = times.SortedPair(law=times.Uniform(t_max=0.99))
    >>> loss, _ = moment_matching_loss(
    ...     net, jax.random.key(0), {"data": jnp.zeros((4, 3))},
    ...     path=paths.Linear(t_max=0.99), sample_times=pair,
    ...     flow_map=flow_maps.average_velocity)
    >>> (jnp.abs(loss) < 1e-4).all().item()
    True
  """
  data = batch["data"]
  size = data.shape[0]
  if size % group_size:
    raise ValueError(
      f"batch of {size} rows is no multiple of group_size={group_size}"
    )
  time_key, noise_key, label_key = jax.random.split(key, 3)
  noise = couplings.noise_of(batch, noise_key)
  cond = guidance.drop_labels(
    label_key, batch.get("cond"), rate=label_dropout, null_cond=null_cond
  )

  def shared(x):
    return jnp.repeat(x.reshape(-1, group_size)[:, 0], group_size)

  t, s = (
    shared(x) for x in times.draw(sample_times, time_key, data, of="pairs")
  )
  if middle_times is None:
    r = earlier_times(path, t, s, halvings=halvings, gap=gap)
  else:
    r = middle_times(t, s)

  f = flow_map(model_fn)
  xt, xr = (paths.interpolate(path, data, noise, x) for x in (t, r))
  jump = f(xt, t, s, cond)
  target = jax.lax.stop_gradient(f(xr, r, s, cond))

  # c_out is the jump from 0 by a network that says 1.
  one = flow_map(lambda xt, t, s, cond: jnp.ones_like(xt))
  gain = jnp.abs(one(jnp.zeros_like(t)[:, None], t, s, None)[:, 0])
  # 1 / (c_out d); the floor is for t = s, where both sets are equal.
  rate = 1 / jnp.maximum(gain * paths.noise_std(path), 1e-8)
  rate = rate * data.shape[0] / data.size
  raw = _discrepancy(jump, target, rate, group_size)
  weight = _weight(path, t, weight_power, weight_shift)
  return weight * raw, {"raw": raw.mean()}


def earlier_times(
  path: paths.Path, t: Array, s: Array, *, halvings: int = 12, gap: float = 0.0
) -> Array:
  """Return r in [s, t], a small and constant step in level below t, eq. (1).

  t, s and r are `[B]`, `halvings` is h, and `gap` the least t - r.
  """
  with jax.ensure_compile_time_eval():
    ends = jnp.asarray([path.t_min, path.t_max], t.dtype)
    low, high = predictions.noise_level(path, ends).tolist()
  if math.isinf(high):
    raise ValueError(
      f"t_max={path.t_max} of {type(path).__name__} has no data in it, so its "
      "noise level is infinite: give a smaller t_max, 0.994 for instance"
    )
  level = predictions.noise_level(path, t) - (high - low) * 2.0**-halvings
  r = predictions.time_at(path, jnp.clip(level, low, high))
  return jnp.clip(r, s, jnp.maximum(t - gap, s))


def _discrepancy(a: Array, b: Array, rate: Array, group_size: int) -> Array:
  """Return eq. (4) without its weight, repeated for every row, `[B]`."""
  a, b = (x.reshape(-1, group_size, math.prod(x.shape[1:])) for x in (a, b))
  rate = rate.reshape(-1, group_size, 1)

  def similarity(a, b):
    """Average k - 1: the ones cancel in eq. (4), their rounding would not."""
    squares = ((a[:, :, None] - b[:, None]) ** 2).sum(-1)
    # The floor keeps the gradient of the root finite where a = b.
    distance = jnp.sqrt(jnp.maximum(squares, 1e-8))
    return jnp.expm1(-rate * distance).mean((1, 2))

  total = similarity(a, a) + similarity(b, b) - 2 * similarity(a, b)
  return jnp.repeat(total, group_size)


def _weight(path: paths.Path, t: Array, power: float, shift: float) -> Array:
  """Return w of eq. (5), `[B]`."""
  std = paths.noise_std(path)
  log_snr, slope = jax.jvp(
    lambda t: paths.log_snr(path, t), (t,), (jnp.ones_like(t),)
  )
  log_snr = log_snr + 2 * math.log(std)
  alpha, sigma = path.alpha(t), path.sigma(t) / std
  scale = alpha**power / (alpha**2 + sigma**2)
  return -0.5 * slope * jax.nn.sigmoid(shift - log_snr) * scale
