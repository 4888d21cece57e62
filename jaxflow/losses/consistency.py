"""Consistency distillation and training in discrete time.

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
takes the EDM denoiser for f, whose target is the data where s = 0.

References:
  Song et al. 2023 (arXiv:2303.01469), eq. 7-10, algorithms 2 and 3; Song,
  Dhariwal 2023 (arXiv:2310.14189); Geng et al. 2024 (arXiv:2406.14548).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxflow import couplings, paths, solvers, times, weights
from jaxflow.options import Amount
from jaxflow.paths import Path
from jaxflow.times import PairSampler
from jaxflow.types import Array, Batch, FlowMap, LossOutput, ModelFn, Teacher


def consistency_loss(
  model_fn: ModelFn,
  key: Array,
  batch: Batch,
  *,
  path: Path,
  sample_times: PairSampler,
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
    model_fn: The network.
    key: Random key for times and, if the batch has none, noise.
    batch: `data [B, ...]`; optional `noise`, `cond`, and `noise_boundary` for
      the noise of eq. (5).
    path: The path between data and noise.
    sample_times: `(key, B) -> (t [B], s [B])`, s < t: neighbours on a grid.
    flow_map: Makes f of a network: `flow_maps.average_velocity`, `edm_skip`,
      `edm_denoiser`, `linear_skip`, `hard_boundary` or `free`.
    target_fn: The network of the target; default: `model_fn`.
    teacher: A network that predicts the velocity, guided if wanted; without
      one, eq. (3) takes the place of eq. (2).
    solver: The teacher's step.
    distance: `(a, b) -> [B]`.
    weight: `(path, t, s) -> [B]`.
    boundary_weight: Factor of eq. (5); 0 leaves it out.
    progress: Share of training that is done, scalar in [0, 1], for times that
      follow a curriculum.

  Returns:
    The loss `[B]`, and metrics: `raw`, the mean unweighted distance, and
    `boundary`, the mean of eq. (5), if it is used.

  Example:
    >>> from jaxflow import flow_maps, times
    >>> import functools
    >>> net = lambda xt, t, s, cond: jnp.ones_like(xt)    # noise - data
    >>> grid = functools.partial(times.uniform_grid, t_min=0.0, t_max=1.0)
    >>> loss, _ = consistency_loss(
    ...     net, jax.random.key(0),
    ...     {"data": jnp.zeros((2, 4)), "noise": jnp.ones((2, 4))},
    ...     path=paths.Linear(), flow_map=flow_maps.average_velocity,
    ...     sample_times=times.AdjacentPair(grid=grid, num_points=5))
    >>> loss.tolist()
    [0.0, 0.0]
  """
  time_key, noise_key, boundary_key = jax.random.split(key, 3)
  data, cond = batch["data"], batch.get("cond")
  noise = couplings.noise_of(batch, noise_key)
  t, s = times.at(sample_times, progress)(time_key, data.shape[0])
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
