"""Consistency distillation and training, in discrete and continuous time.

Neighbouring points of one ODE trajectory must have the same end under the
consistency function f, the flow map to t_min:

  xt = alpha(t) data + sigma(t) noise                                     (1)
  xs = Step(teacher; xt, t -> s)            distillation                  (2)
  xs = alpha(s) data + sigma(s) noise       training, no teacher          (3)
  L = w(t, s) dist(f(xt, t), sg f_target(xs, s))                          (4)
  + boundary_weight dist(f(x_min, t_min), data)                           (5)

with x_min the point of the path at t_min (fresh noise). Only the first argument
of (4) has a gradient; the target network is an EMA, or the network itself.

Improved training is (3) with curricula and pseudo-Huber distances; easy tuning
takes the EDM denoiser for f, whose target is the data where s = 0. In the limit
of many grid points f must be constant along a trajectory.

References:
  Song et al. 2023 (arXiv:2303.01469), eq. 7-10, algorithms 2 and 3, theorems 3
  and 6 for continuous time; Song, Dhariwal 2023 (arXiv:2310.14189); Geng et al.
  2024 (arXiv:2406.14548).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxflow import couplings, paths, solvers, times, weights
from jaxflow.losses import derivatives
from jaxflow.options import Amount, Positive
from jaxflow.types import Array, Batch, FlowMap, LossOutput, ModelFn, Teacher


def consistency_loss(
  model_fn: ModelFn,
  key: Array,
  batch: Batch,
  *,
  path: paths.Path,
  sample_times: times.PairSampler,
  flow_map: Callable[[ModelFn], FlowMap],
  target_fn: ModelFn | None = None,
  teacher: Teacher | None = None,
  solver: solvers.Solver = solvers.heun,
  distance: weights.Distance = weights.l2,
  weight: weights.Weight = weights.uniform,
  boundary_weight: Amount = 0.0,
  progress: Array | None = None,
) -> LossOutput:
  """Compute the consistency loss of each sample, eq. (4)-(5).

  Args:
    batch: As in every loss (`jaxflow.losses`); optional `noise_boundary` is the
      noise of eq. (5).
    sample_times: Pairs s < t, neighbours on a grid.
    flow_map: `flow_maps.average_velocity`, `edm_skip`, `edm_denoiser`,
      `linear_skip`, `hard_boundary` or `free`.
    teacher: Without one, eq. (3) takes the place of eq. (2).
    boundary_weight: Factor of eq. (5), whose mean is the metric `boundary`; 0
      leaves it out.

  Example:
    >>> from jaxflow import flow_maps
    >>> net = lambda xt, t, s, cond: jnp.ones_like(xt)    # noise - data
    >>> batch = {"data": jnp.zeros((2, 4)), "noise": jnp.ones((2, 4))}
    >>> pair = times.AdjacentPair(grid=times.uniform_grid, num_points=5)
    >>> loss, _ = consistency_loss(
    ...     net, jax.random.key(0), batch, path=paths.Linear(),
    ...     flow_map=flow_maps.average_velocity, sample_times=pair)
    >>> loss.tolist()
    [0.0, 0.0]
  """
  time_key, noise_key, boundary_key = jax.random.split(key, 3)
  data, cond = batch["data"], batch.get("cond")
  noise = couplings.noise_of(batch, noise_key)
  t, s = times.draw(sample_times, time_key, data, progress, of="pairs")
  t_min = jnp.full_like(t, path.t_min)

  xt = paths.interpolate(path, data, noise, t)
  if teacher is None:
    xs = paths.interpolate(path, data, noise, s)
  else:
    xs = solvers.step(solver, teacher, xt, t, s, cond)
  f = flow_map(model_fn)
  f_target = flow_map(target_fn or model_fn)
  target = jax.lax.stop_gradient(f_target(xs, s, t_min, cond))

  raw = distance(f(xt, t, t_min, cond), target)
  loss = weight(path, t, s) * raw
  metrics = {"raw": raw.mean()}
  if boundary_weight:
    drawn = paths.standard_normal(boundary_key, data.shape, data.dtype)
    fresh = batch.get("noise_boundary", drawn)
    x_min = paths.interpolate(path, data, fresh, t_min)
    boundary = distance(f(x_min, t_min, t_min, cond), data)
    loss = loss + boundary_weight * boundary
    metrics["boundary"] = boundary.mean()
  return loss, metrics


def continuous_time_consistency_loss(
  model_fn: ModelFn,
  key: Array,
  batch: Batch,
  *,
  path: paths.Path,
  sample_times: times.TimeSampler,
  flow_map: Callable[[ModelFn], FlowMap],
  teacher: Teacher | None = None,
  derivative: derivatives.Derivative = "jvp",
  difference_step: Positive = 0.005,
) -> LossOutput:
  """Compute the pseudo-objective of each sample in continuous time.

  With v the velocity of the sample, or of a teacher,

    (f, df/dt) = jvp(f; (xt, t), (v, 1)),   L = sum (sg(df/dt) f).

  Only the gradient of L means something; its value may be negative. The metrics
  `raw`, the mean of `||df/dt||^2`, and `tangent_norm`, that of `||df/dt||`, are
  0 for an exact f and the exact velocity.

  Args:
    model_fn: A JVP needs its forward-mode derivative; others: `jaxflow.losses`.
    sample_times: `times.Karras` for instance.
    flow_map: `flow_maps.edm_skip`, `linear_skip` or `average_velocity`; it must
      be differentiable in t.
    derivative: How df/dt is computed; see `derivatives`.
    difference_step: Its step h, in units of t.

  Example:
    >>> from jaxflow import flow_maps
    >>> net = lambda xt, t, s, cond: 0 * xt    # f(xt, t) = xt, df/dt = noise
    >>> batch = {"data": jnp.zeros((2, 3)), "noise": jnp.ones((2, 3))}
    >>> loss, _ = continuous_time_consistency_loss(
    ...     net, jax.random.key(0), batch, path=paths.VarianceExploding(),
    ...     sample_times=times.Constant(t=2.0),
    ...     flow_map=flow_maps.average_velocity)
    >>> loss.tolist()
    [6.0, 6.0]
  """
  time_key, noise_key = jax.random.split(key)
  data, cond = batch["data"], batch.get("cond")
  noise = couplings.noise_of(batch, noise_key)
  t = times.draw(sample_times, time_key, data, of="times")
  t_min = jnp.full_like(t, path.t_min)
  x = paths.interpolate(path, data, noise, t)
  if teacher is None:
    v = paths.velocity(path, data, noise, t)
  else:
    v = jax.lax.stop_gradient(teacher(x, t, t, cond))

  f, tangent = derivatives.along_flow(
    lambda x, t: flow_map(model_fn)(x, t, t_min, cond),
    *(x, t, v),
    path=path,
    derivative=derivative,
    step=difference_step,
  )
  tangent = jax.lax.stop_gradient(tangent)
  raw = weights.sample_sum(tangent**2)
  metrics = {"raw": raw.mean(), "tangent_norm": jnp.sqrt(raw).mean()}
  return weights.sample_sum(tangent * f), metrics
