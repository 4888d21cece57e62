"""The consistency loss whose target has a gradient too."""

from collections.abc import Callable

import jax

from jaxflow import couplings, paths, solvers, times, weights
from jaxflow.paths import Path
from jaxflow.types import Array, Batch, FlowMap, LossOutput, ModelFn


def unstopped_loss(
  model_fn: ModelFn,
  key: Array,
  batch: Batch,
  *,
  path: Path,
  sample_times: times.PairSampler,
  flow_map: Callable[[ModelFn], FlowMap],
  target_fn: ModelFn | None = None,
  teacher: ModelFn | None = None,
  solver: solvers.Solver = solvers.heun,
  distance: weights.Distance = weights.l2,
  weight: weights.Weight = weights.uniform,
  boundary_weight: float = 0.0,
  progress: Array | None = None,
) -> LossOutput:
  """Compute `consistency_loss` without its stop-gradient.

  Both sides are the network that is trained. Arguments are those of
  `jaxflow.losses.consistency_loss`; the boundary must be built in.
  """
  del target_fn, boundary_weight
  time_key, noise_key, _ = jax.random.split(key, 3)
  data, cond = batch["data"], batch.get("cond")
  noise = couplings.noise_of(batch, noise_key)
  t, s = times.at(sample_times, progress)(time_key, data.shape[0])
  t_min = jax.numpy.full_like(t, path.t_min)
  xt = paths.interpolate(path, data, noise, t)
  if teacher is None:
    xs = paths.interpolate(path, data, noise, s)
  else:
    xs = solvers.step(solver, teacher, xt, t, s, cond)
  f = flow_map(model_fn)
  raw = distance(f(xt, t, t_min, cond), f(xs, s, t_min, cond))
  return weight(path, t, s) * raw, {"raw": raw.mean()}
