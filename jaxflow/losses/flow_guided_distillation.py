"""Flow-guided distillation: pairs, and a two-step target without pairs.

The one-step generator of SlimFlow learns from stored pairs (noise', data) and,
on fresh noise n, from a path of two steps whose second is a teacher's,

  u = F(xt', t0),  L = dist(noise' - u, data)                             (1)
  v = F(n, t0),    xm = sg(n - (1 - m) v)                                 (2)
  end = xm - m F_teacher(xm, m)                                           (3)
  L += w mean (n - v - sg end)^2                                          (4)

with xt' the point of the linear path between the pair at t0, which is noise'
itself at t0 = 1, and m between noise and data. The gradient of (4) passes
through v alone, not through xm. Both evaluations of F share one batch.

References:
  Zhu, Liu, Liu 2024 (arXiv:2407.12718), section 3.3.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from jaxflow import couplings, paths, rows, times, weights
from jaxflow.options import Amount, Range
from jaxflow.paths import Path, expand
from jaxflow.types import Array, LossOutput, ModelFn, Pairs, Teacher


def flow_guided_distillation_loss(
  model_fn: ModelFn,
  key: Array,
  batch: Pairs,
  *,
  path: Path,
  sample_times: times.TimeSampler,
  teacher: Teacher,
  distance: weights.Distance = weights.l2,
  guided_weight: Amount = 1.0,
  start_time: Annotated[
    float, Range("above 0, at most 1", lambda t: 0 < t <= 1)
  ] = 1.0,
) -> LossOutput:
  """Compute the flow-guided distillation loss of each sample, eq. (1)-(4).

  The metrics are the mean `raw` of eq. (1), and `guided` of eq. (4) without its
  weight.

  Args:
    model_fn: Called with s = t_min. Others: see `jaxflow.losses`.
    batch: `data` with the `noise` it came from, which is needed; optional
      `fresh_noise` for n.
    path: The linear path.
    sample_times: Times m of the intermediate point; published: uniform on
      [0.2, 0.8].
    distance: That of eq. (1).
    guided_weight: w of eq. (4).
    start_time: t0; 1 is what sampling calls, 0.999 what was published.

  Example:
    >>> net = lambda xt, t, s, cond: xt                   # jumps to 0
    >>> batch = {"data": jnp.full((2, 4), 2.0), "noise": jnp.ones((2, 4))}
    >>> loss, metrics = flow_guided_distillation_loss(
    ...     net, jax.random.key(0), batch, path=paths.Linear(), teacher=net,
    ...     sample_times=times.Constant(t=0.0))
    >>> loss.tolist(), float(metrics["guided"])
    ([4.0, 4.0], 0.0)
  """
  if not isinstance(path, paths.Linear):
    raise ValueError(
      f"path {type(path).__name__}: eq. (2) and (3) are steps on straight "
      "lines; give Linear"
    )
  couplings.check_pairs(batch)
  time_key, noise_key = jax.random.split(key)
  data, noise, cond = batch["data"], batch["noise"], batch.get("cond")
  drawn = paths.standard_normal(noise_key, noise.shape, noise.dtype)
  fresh = batch.get("fresh_noise", drawn)
  m = times.draw(sample_times, time_key, data, of="times")
  t0 = jnp.full_like(m, start_time)
  xt = paths.interpolate(path, data, noise, t0)
  s = jnp.full_like(t0, path.t_min)

  u, v = rows.side_by_side(
    model_fn, (xt, t0, s, cond), (fresh, t0, s, cond), (2, 1)
  )
  xm = jax.lax.stop_gradient(fresh - expand(1 - m, v) * v)
  end = jax.lax.stop_gradient(xm - expand(m, v) * teacher(xm, m, m, cond))
  raw = distance(noise - u, data)
  guided = weights.l2(fresh - v, end)
  metrics = {"raw": raw.mean(), "guided": guided.mean()}
  return raw + guided_weight * guided, metrics
