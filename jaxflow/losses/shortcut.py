"""Shortcut models: one step must land where two steps of half the size land.

F(xt, t, s) is the average velocity over [s, t]. Most rows regress the velocity
at s = t; the interval rows bootstrap, with q the target network (an EMA), D the
gap t - s, a power of two, and m = (t + s) / 2:

  q(x, a, b) = F_q(x, a, a) if a - b <= 1/T else F_q(x, a, b)             (1)
  v1 = q(xt, t, m),   xm = clip(xt - D/2 v1),   v2 = q(xm, m, s)          (2)
  target = sg clip((v1 + v2) / 2)       interval rows                     (3)
  target = velocity                     flow rows                         (4)
  L = mean (F(xt, t, s) - target)^2                                       (5)

Guidance enters where the half steps of (2) are the smallest, at D = 2/T, and
from there every longer step:

  q <- q_0 + omega (q_y - q_0)                                            (6)

Only the rows of that level pay for the null forward of (6), which shares one
batch with the others. Levels cycle over the interval rows, so these are every
M-th of them, M = log2 T, and a split by blocks of M finds them.

References:
  Frans et al. 2024 (arXiv:2410.12557), eq. 3-5, algorithm 1 and 2.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from jaxflow import couplings, guidance, paths, rows, times, weights
from jaxflow.options import (
  Amount,
  Count,
  Guides,
  LabelDropout,
  Layout,
  SharedWithFlowMap,
)
from jaxflow.paths import Path, expand
from jaxflow.times import PairSampler, dyadic
from jaxflow.types import Array, Batch, JumpFn, LossOutput, ModelFn, PyTree


def shortcut_loss(
  model_fn: JumpFn,
  key: Array,
  batch: Batch,
  *,
  path: Path,
  sample_times: PairSampler,
  num_steps: Annotated[Count, Layout(), SharedWithFlowMap()] = 128,
  block: rows.Block = (8, 1),
  target_fn: ModelFn | None = None,
  clip: Amount = 0.0,
  omega: Annotated[Amount, Guides(off=1)] = 1.0,
  label_dropout: LabelDropout = 0.0,
  null_cond: PyTree = None,
) -> LossOutput:
  """Compute the shortcut loss of each sample, eq. (5).

  Args:
    model_fn: The average velocity of [s, t]. Others: see `jaxflow.losses`.
    path: A path whose times are [0, 1].
    sample_times: `dyadic.DyadicPair` with the same `num_steps` and `block`.
    num_steps: T, the number of smallest steps, a power of two. A batch has log2
      T interval rows or more.
    clip: Bound of xm and of the bootstrap target, in data units; 0 is none.
    omega: Guidance scale of eq. (6); 1 is none.
    label_dropout: Share of all rows that lose their label, taken among the flow
      rows.

  Example:
    >>> net = lambda xt, t, s, cond: 0 * xt
    >>> batch = {"data": jnp.zeros((4, 3)), "noise": jnp.ones((4, 3))}
    >>> loss, _ = shortcut_loss(
    ...     net, jax.random.key(0), batch, path=paths.Linear(), num_steps=4,
    ...     sample_times=dyadic.DyadicPair(num_steps=4, block=(2, 1)),
    ...     block=(2, 1))
    >>> loss.tolist()
    [0.0, 1.0, 0.0, 1.0]
  """
  data, cond = batch["data"], batch.get("cond")
  size = data.shape[0]
  level = dyadic.levels(num_steps, block, size)
  if (path.t_min, path.t_max) != (0, 1):
    raise ValueError(
      f"path={path}: halved steps divide [0, 1]; give a path with t_min=0 and "
      "t_max=1"
    )
  if omega != 1 and (cond is None or null_cond is None):
    raise ValueError(
      f"omega={omega} guides by labels: give labels in `cond` and null_cond, "
      "or set omega=1"
    )
  time_key, noise_key, label_key = jax.random.split(key, 3)
  noise = couplings.noise_of(batch, noise_key)
  interval = rows.is_interval(block, size)
  cond = guidance.drop_labels(
    label_key,
    cond,
    rate=label_dropout,
    null_cond=null_cond,
    among=~interval,
  )
  t, s = times.draw(sample_times, time_key, data, of="pairs")
  s = jnp.where(interval, s, t)
  xt = paths.interpolate(path, data, noise, t)

  q = dyadic.on_diagonal(target_fn or model_fn, num_steps)
  if omega != 1:
    # Where the last cycle of levels is not complete, no split by blocks finds
    # the finest: then all interval rows take both forwards.
    count, cycle = int(interval.sum()), int(level.max())
    every = cycle if count % cycle == 0 else 1
    q = _guided(q, omega, null_cond, num_steps, every)
  points, _ = rows.split((xt, t, s, cond), block)
  bootstrapped = jax.lax.stop_gradient(_two_steps(q, *points, clip=clip))
  _, velocity = rows.split(paths.velocity(path, data, noise, t), block)
  target = rows.merge(bootstrapped, velocity, block)

  error = weights.l2(model_fn(xt, t, s, cond), target)
  error_i, error_f = rows.split(error, block)
  metrics = {"raw": error.mean(), "raw_interval": error_i.mean()}
  if error_f.size:
    metrics["raw_flow"] = error_f.mean()
  return error, metrics


def _two_steps(
  q: ModelFn, xt: Array, t: Array, s: Array, cond: Array, *, clip: float
) -> Array:
  """Return the average velocity of two half steps, eq. (2) and (3)."""

  def bounded(x):
    return jnp.clip(x, -clip, clip) if clip else x

  m = (t + s) / 2
  v1 = q(xt, t, m, cond)
  v2 = q(bounded(xt - expand(t - m, xt) * v1), m, s, cond)
  return bounded((v1 + v2) / 2)


def _guided(
  q: ModelFn, omega: float, null_cond: PyTree, num_steps: int, every: int
) -> ModelFn:
  """Guide q where the gap is 1/T, eq. (6), on the first of `every` rows."""

  def guided(xt, t, s, cond):
    first, others = rows.split((xt, t, s, cond), (every, 1))
    x, time, to, label = first
    null = x, time, to, guidance.null(label, null_cond)
    twins = rows.merge(first, null, (2, 1))
    of_twins, of_others = rows.side_by_side(q, twins, others, (every + 1, 2))
    labelled, unlabelled = rows.split(of_twins, (2, 1))
    scale = jnp.where(time - to <= 1 / num_steps, omega, 1).astype(x.dtype)
    value = unlabelled + expand(scale, x) * (labelled - unlabelled)
    return rows.merge(value, of_others, (every, 1))

  return guided
