"""Mid-training: regress every point of a teacher's trajectory on its end.

Between diffusion and consistency training, a network learns the jump to data
from all K points of solver trajectories,

  y_0 = sigma(t_0) noise,  or alpha(t_0) data + sigma(t_0) noise          (1)
  y_0 -> ... -> y_K by multistep DPM-Solver++ of the teacher              (2)
  L = 1 / K sum_{j < K} dist(f(y_j, t_j), sg y_K)                         (3)

where the order of step j of K is min(order, j + 1, K - j), as in
`sampling.DPMSolver`.

References:
  Hu, Lai, Mitsufuji, Ermon 2025 (arXiv:2509.24526), section 4; Lu et al. 2022
  (arXiv:2211.01095), algorithm 2.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxflow import couplings, predictions, weights
from jaxflow.options import Count
from jaxflow.paths import Path, as_times
from jaxflow.sampling import DPMSolver
from jaxflow.times import Grid
from jaxflow.types import Array, Batch, FlowMap, LossOutput, ModelFn, Teacher


def mid_training_loss(
  model_fn: ModelFn,
  key: Array,
  batch: Batch,
  *,
  path: Path,
  teacher: Teacher,
  flow_map: Callable[[ModelFn], FlowMap],
  grid: Grid,
  num_steps: Count = 16,
  order: Count = 3,
  distance: weights.Distance = weights.l2_sum,
  data_plus_noise: bool = False,
) -> LossOutput:
  """Compute the mid-training loss of each trajectory, eq. (3).

  A batch of B trajectories is K B rows of the network: choose B accordingly.

  Args:
    batch: Of `data`, (1) may need the shape only. Others: see `jaxflow.losses`.
    path: A path with sigma > 0 and alpha > 0 on all the grid.
    flow_map: `flow_maps.edm_denoiser`; it is called with s = t_min.
    grid: Number of points -> decreasing times: equal steps of log-SNR are
      `times.log_grid` on the variance-exploding path.
    num_steps: K, steps of a trajectory.
    order: Largest order of the solver, 1, 2 or 3.
    distance: `weights.l2_sum`, `huber(0.0)`, or one of features
      (`losses.perceptual`).
    data_plus_noise: Whether y_0 starts at noised data instead of noise.

  Example:
    >>> import functools
    >>> from jaxflow import flow_maps, paths, times
    >>> grid = functools.partial(times.log_grid, t_min=0.01, t_max=1.0)
    >>> loss, _ = mid_training_loss(
    ...     lambda xt, t, s, cond: 0 * xt, jax.random.key(0),
    ...     {"data": jnp.zeros((1, 1)), "noise": jnp.ones((1, 1))},
    ...     path=paths.VarianceExploding(t_min=0.01, t_max=1.0), grid=grid,
    ...     teacher=lambda xt, t, s, cond: xt / t[:, None],    # data = 0
    ...     flow_map=flow_maps.free)
    >>> round(float(loss[0]), 6)                             # (0 - 0.01)^2
    0.0001
  """
  data, cond = batch["data"], batch.get("cond")
  noise = couplings.noise_of(batch, key)
  times = as_times(grid(num_steps + 1), data)
  # Zero times the data, not nothing: this tells the compiler on which devices
  # the rows are, where noise of its own has none.
  share = path.alpha(times[0]) * (1.0 if data_plus_noise else 0.0)
  start = share * data + path.sigma(times[0]) * noise
  denoiser = predictions.as_prediction(
    teacher, path, source="velocity", target="data"
  )

  solver = DPMSolver(order=order)
  end, points = jax.lax.stop_gradient(
    solver.trajectory(denoiser, start, times, cond, path)
  )

  # The points of one trajectory side by side, so that no row changes its
  # device.
  def every(x):
    return jnp.repeat(x, num_steps, axis=0)

  size = data.shape[0]
  rows = jnp.moveaxis(points, 0, 1).reshape(-1, *data.shape[1:])
  t = jnp.tile(times[:-1], size)
  s = jnp.full_like(t, path.t_min)
  f = flow_map(model_fn)(rows, t, s, jax.tree.map(every, cond))
  loss = distance(f, every(end)).reshape(size, num_steps).mean(1)
  return loss, {"raw": loss.mean()}
