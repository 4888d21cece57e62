"""Truncated consistency: the second stage, which learns the noisy times only.

A consistency function f that was trained at all times, the first stage f1, is
frozen. The student f_theta starts from it and learns the times t >= t', the
transition; below, f1 stays the function:

  g(x, t) = f_theta(x, t) where t >= t', f1(x, t) below                   (1)
  xt = alpha(t) data + sigma(t) noise,  xs of the same noise,  t >= t'
  d = dist(f_theta(xt, t), sg g(xs, s))                                   (2)
  L = mean of w(t, s) d over the rows above
      + boundary_weight mean of w(t, s) d over the boundary rows          (3)

Boundary rows have t = t' and s < t', so their target is f1. They keep f_theta
from becoming constant, which all rows above would accept. As a loss of each
sample whose mean is eq. (3), rows above weigh m / (m - k) and boundary rows
boundary_weight m / k, with (m, k) the block.

References:
  Lee et al. 2024 (arXiv:2410.14895).
"""

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp

from jaxflow import couplings, paths, rows, times, weights
from jaxflow.options import Amount, Positive, Transition
from jaxflow.paths import expand
from jaxflow.types import (
  Array,
  Batch,
  FirstStage,
  FlowMap,
  LossOutput,
  ModelFn,
)


def truncated_consistency_loss(
  model_fn: ModelFn,
  key: Array,
  batch: Batch,
  *,
  path: paths.Path,
  sample_times: times.PairSampler,
  flow_map: Callable[[ModelFn], FlowMap],
  teacher: FirstStage,
  transition: Annotated[Positive, Transition()] = 1.0,
  block: rows.Block = (4, 1),
  boundary_weight: Amount = 0.1,
  distance: weights.Distance = weights.l2,
  weight: weights.Weight = weights.inverse_gap,
) -> LossOutput:
  """Compute the truncated consistency loss of each sample, eq. (3).

  The metric `raw` is the mean of d over the rows above the transition,
  `raw_boundary` that over boundary rows.

  Args:
    sample_times: Pairs t >= transition, s < t, on boundary rows from t =
      transition; see `times.TransitionPair`.
    flow_map: `flow_maps.edm_denoiser`, `edm_skip` or `average_velocity`.
    teacher: f1, `(xs, s, t_min, cond) -> data`, without dropout.
    transition: t', in units of t.
    block: Of every m rows the first k are boundary rows, k < m.
    boundary_weight: Factor of the mean over boundary rows.

  Example:
    >>> from jaxflow import flow_maps
    >>> net = lambda xt, t, s, cond: xt / expand(t, xt)    # exact for data = 0
    >>> f = flow_maps.average_velocity
    >>> loss, _ = truncated_consistency_loss(
    ...     net, jax.random.key(0), {"data": jnp.zeros((4, 2))},
    ...     path=paths.VarianceExploding(t_min=0.0), flow_map=f, teacher=f(net),
    ...     sample_times=times.TransitionPair())
    >>> (jnp.abs(loss) < 1e-5).all().item()
    True
  """
  if not path.t_min < transition < path.t_max:
    raise ValueError(
      f"transition={transition}: give a time inside the path, above "
      f"{path.t_min} and below {path.t_max}"
    )
  m, k = block
  if m == k:
    raise ValueError(
      f"block={block} has boundary rows alone: give (m, k) with k < m"
    )
  data, cond = batch["data"], batch.get("cond")
  size = len(data)
  rows.check_block(block, size)
  time_key, noise_key = jax.random.split(key)
  noise = couplings.noise_of(batch, noise_key)
  t, s = times.draw(sample_times, time_key, data, of="pairs")
  t_min = jnp.full_like(t, path.t_min)

  xt, xs = (paths.interpolate(path, data, noise, time) for time in (t, s))
  f = flow_map(model_fn)
  # All rows see the dropout of the first call, row by row, so boundary rows are
  # part of this one as well.
  own, first = f(xs, s, t_min, cond), teacher(xs, s, t_min, cond)
  target = jnp.where(expand(s >= transition, own), own, first)
  target = jax.lax.stop_gradient(target)

  raw = distance(f(xt, t, t_min, cond), target)
  boundary = rows.is_interval(block, size)
  share = jnp.where(boundary, boundary_weight * m / k, m / (m - k))
  at_boundary, above = rows.split(raw, block)
  metrics = {"raw": above.mean(), "raw_boundary": at_boundary.mean()}
  return share.astype(raw.dtype) * weight(path, t, s) * raw, metrics
