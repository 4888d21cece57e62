"""Consistency distillation and training in continuous time.

In the limit of many grid points, the consistency function f, the flow map to
t_min, must be constant along a trajectory. With v the velocity of the sample
(training) or of a teacher (distillation),

  xt = alpha(t) data + sigma(t) noise                                     (1)
  (f, df/dt) = jvp(f; (xt, t), (v, 1))                                    (2)
  L = sum (sg(df/dt) f)                                                   (3)

(3) is a pseudo-objective: only its gradient means something, its value may be
negative.

References:
  Song et al. 2023 (arXiv:2303.01469), theorems 3 and 6.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxflow import couplings, paths, weights
from jaxflow.paths import Path
from jaxflow.times import TimeSampler
from jaxflow.types import Array, Batch, FlowMap, LossOutput, ModelFn, Teacher


def continuous_time_consistency_loss(
  model_fn: ModelFn,
  key: Array,
  batch: Batch,
  *,
  path: Path,
  sample_times: TimeSampler,
  flow_map: Callable[[ModelFn], FlowMap],
  teacher: Teacher | None = None,
) -> LossOutput:
  """Compute the pseudo-objective of each sample, eq. (3).

  The metrics `raw`, the mean of `||df/dt||^2`, and `tangent_norm`, that of
  `||df/dt||`, are 0 for an exact f and the exact velocity.

  Args:
    model_fn: A network with a forward-mode derivative. Other arguments: see
      `jaxflow.losses`.
    sample_times: `times.Karras` for instance.
    flow_map: `flow_maps.edm_skip`, `linear_skip` or `average_velocity`; it must
      be differentiable in t.
    teacher: Without one, v is the velocity of the sample.

  Example:
    >>> from jaxflow import flow_maps, times
    >>> net = lambda xt, t, s, cond: 0 * xt    # f(xt, t) = xt, df/dt = noise
    >>> loss, _ = continuous_time_consistency_loss(
    ...     net, jax.random.key(0),
    ...     {"data": jnp.zeros((2, 3)), "noise": jnp.ones((2, 3))},
    ...     path=paths.VarianceExploding(), sample_times=times.Constant(t=2.0),
    ...     flow_map=flow_maps.average_velocity)
    >>> loss.tolist()
    [6.0, 6.0]
  """
  time_key, noise_key = jax.random.split(key)
  data, cond = batch["data"], batch.get("cond")
  noise = couplings.noise_of(batch, noise_key)
  t = sample_times(time_key, data.shape[0])
  t_min = jnp.full_like(t, path.t_min)
  xt = paths.interpolate(path, data, noise, t)
  if teacher is None:
    v = paths.velocity(path, data, noise, t)
  else:
    v = jax.lax.stop_gradient(teacher(xt, t, t, cond))

  f, tangent = jax.jvp(
    lambda xt, t: flow_map(model_fn)(xt, t, t_min, cond),
    (xt, t),
    (v, jnp.ones_like(t)),
  )
  tangent = jax.lax.stop_gradient(tangent)
  raw = weights.sample_sum(tangent**2)
  metrics = {"raw": raw.mean(), "tangent_norm": jnp.sqrt(raw).mean()}
  return weights.sample_sum(tangent * f), metrics
