"""Consistency trajectory models: jump from any time t to any earlier time s.

A teacher walks from t to u. A jump from t to s must give the same point as the
walk followed by a jump from u to s. The target network, with fixed weights,
carries both points on to data, where their distance is meaningful:

  G(x, t, s) = (s / t) x + (1 - s / t) g(x, t, s)                         (1)
  xu = h steps of the teacher from xt, t -> u                             (2)
  estimate = G_target(G(xt, t, s), s, t_min)                              (3)
  target = sg G_target(sg G(xu, u, s), s, t_min)                          (4)
  L_CTM = dist(estimate, target)                                          (5)

The gradient passes through the call of G_target in (3) into G. Two more terms
hold g on the diagonal to the denoiser, and the estimates to the law of data:

  L_DSM = (t^2 + sd^2) / (t sd)^2 mean (g(data + t noise', t, t) - data)^2 (6)
  L_G = criterion(D(estimate)), for the hinge the mean of -D(estimate)    (7)
  L = L_CTM + lam_DSM L_DSM + lam_G L_G                                   (8)
  lam_X = sg clip(||grad_W L_CTM|| / (||grad_W L_X|| + 1e-4), 0, 1e4)     (9)

with batch means in (9), lam_G then in [0.01, 10], and W one layer near the
output. A loss sees its network as a function, so the layer comes as
`last_layer = (build, W)`: `build(W)` is the network again, as a function of
that layer alone. It serves (9) only; the gradient of (8) goes through
`model_fn`. Both run the same forward pass, which XLA merges under jit: (9)
then costs nothing for L_DSM, and two backward passes through G_target for L_G.

References:
  Kim et al. 2023, consistency trajectory models (arXiv:2310.02279).
"""

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp

from jaxflow import flow_maps, paths, predictions, solvers, times, weights
from jaxflow.couplings import noise_of, second_noise_of
from jaxflow.losses import adversarial
from jaxflow.options import Amount, DataScale, Layer
from jaxflow.types import (
  Array,
  Batch,
  Discriminator,
  JumpFn,
  LossOutput,
  ModelFn,
  PyTree,
  Teacher,
)

LastLayer = tuple[Callable[[PyTree], ModelFn], PyTree]

# What is clipped after eq. (9).
_LIMITS = {"denoising": (0.0, 1e4), "adversarial": (0.01, 10.0)}


def consistency_trajectory_loss(
  model_fn: JumpFn,
  key: Array,
  batch: Batch,
  *,
  path: paths.Path,
  sample_times: times.TrajectorySampler,
  target_fn: ModelFn,
  teacher: Teacher,
  sigma_data: DataScale = 0.5,
  solver: solvers.Solver = solvers.heun,
  distance: weights.Distance = weights.l2,
  denoising_weight: Amount = 1.0,
  denoising_times: times.TimeSampler | None = None,
  discriminator: Discriminator | None = None,
  criterion: adversarial.Criterion = adversarial.hinge,
  last_layer: Annotated[LastLayer | None, Layer("output/kernel")] = None,
) -> LossOutput:
  """Compute the consistency trajectory loss of each sample, eq. (8).

  Its metrics are the means `raw` of eq. (5), `denoising` of eq. (6),
  `adversarial` of eq. (7), and `lam_denoising`, `lam_adversarial` of eq. (9).

  Args:
    model_fn: The raw network of `flow_maps.trajectory`, as is `target_fn`.
    batch: As in every loss (`jaxflow.losses`); optional `noise_denoising` is
      the noise' of eq. (6); default: the `noise` of the batch, drawn anew if
      there is none.
    path: The variance-exploding path.
    sample_times: `(key, B) -> (walk [H + 1, B], s [B])`: the times that the
      teacher visits, from t to u, and s <= u. Rows at the end that repeat u are
      steps that are not taken and cost nothing, so h may change from batch to
      batch (`times.TrajectoryTimes`).
    denoising_weight: Factor of lam_DSM; 0 leaves eq. (6) out.
    denoising_times: `(key, B) -> t [B]` of eq. (6); default: every other row
      log-normal(-1.2, 1.2), the others on the noisier 0.7 of the Karras
      schedule.
    discriminator: Without one eq. (7) is left out. Scaled logits scale L_G.
    last_layer: `(build, W)` of eq. (9), `build(W)` the same network as
      `model_fn`; without it both lam are 1. Let `build` close over parameters
      under `stop_gradient`, or eq. (9) is traced twice.

  Example:
    >>> net = lambda xt, t, s, cond: 0 * xt
    >>> walk = times.TrajectoryTimes(grid=times.karras_grid, num_points=18)
    >>> loss, metrics = consistency_trajectory_loss(
    ...     net, jax.random.key(0), {"data": jnp.ones((2, 4))},
    ...     path=paths.VarianceExploding(), sample_times=walk,
    ...     target_fn=net, teacher=net)
    >>> loss.shape, sorted(metrics)
    ((2,), ['denoising', 'lam_denoising', 'raw'])
  """
  keys = jax.random.split(key, 4)
  data, cond = batch["data"], batch.get("cond")
  noise = noise_of(batch, keys[0])
  walk, s = times.draw(sample_times, keys[1], data, of="walks")
  t, u = walk[0], walk[-1]
  t_min = jnp.full_like(t, path.t_min)

  jump = flow_maps.trajectory(model_fn, sigma_data=sigma_data)
  finish = flow_maps.trajectory(target_fn, sigma_data=sigma_data)
  xt = paths.interpolate(path, data, noise, t)

  # Nothing is differentiated here, so the loop may end at a traced h: over
  # P(h) that is a third fewer teacher calls than H steps under a mask. Counted
  # by row first: one scalar then passes between devices.
  count = (walk[1:] != walk[:-1]).sum(axis=0).max()

  def step(i, x):
    return solvers.step(solver, teacher, x, walk[i], walk[i + 1], cond)

  xu = jax.lax.fori_loop(0, count, step, xt)
  target = finish(jump(xu, u, s, cond), s, t_min, cond)
  target = jax.lax.stop_gradient(target)

  default_times = times.Interleaved(
    first=times.LogNormal(mean=-1.2, std=1.2),
    second=times.Karras(t_min=path.t_min, t_max=path.t_max, last=0.7),
  )
  fresh = second_noise_of(batch, "noise_denoising", keys[2])
  t_dsm = times.draw(
    denoising_times or default_times, keys[3], data, of="times"
  )

  def parts(model_fn: ModelFn) -> dict[str, Array]:
    """Compute eq. (5)-(7), `[B]` each."""
    jump = flow_maps.trajectory(model_fn, sigma_data=sigma_data)
    estimate = finish(jump(xt, t, s, cond), s, t_min, cond)
    result = {"raw": distance(estimate, target)}
    if denoising_weight:
      denoiser = predictions.edm_denoiser(model_fn, sigma_data=sigma_data)
      x_dsm = paths.interpolate(path, data, fresh, t_dsm)
      error = weights.l2(denoiser(x_dsm, t_dsm, t_dsm, cond), data)
      weight = weights.karras(sigma_data)(path, t_dsm, t_dsm)
      result["denoising"] = weight * error
    if (judge := discriminator) is not None:
      result["adversarial"] = adversarial.generator_term(
        criterion, lambda x: judge(x, cond), estimate, data
      )
    return result

  given = parts(model_fn)
  loss = given["raw"]
  lam = _adaptive(parts, given, last_layer)
  for name in lam:
    factor = denoising_weight if name == "denoising" else 1.0
    loss = loss + factor * lam[name] * given[name]
  metrics = {k: v.mean() for k, v in given.items()}
  return loss, metrics | {f"lam_{k}": v for k, v in lam.items()}


def _adaptive(
  parts: Callable[[ModelFn], dict[str, Array]],
  given: dict[str, Array],
  last_layer: LastLayer | None,
) -> dict[str, Array]:
  """Compute lam of eq. (9) for all given parts but the first, `raw`."""
  names = [name for name in given if name != "raw"]
  if last_layer is None:
    return {name: jnp.ones_like(given[name][0]) for name in names}
  build, layer = last_layer

  def norm(name):
    gradient = jax.grad(lambda w: parts(build(w))[name].mean())(layer)
    squares = (jnp.sum(g**2) for g in jax.tree.leaves(gradient))
    return jnp.sqrt(sum(squares))

  raw = norm("raw")
  return jax.lax.stop_gradient(
    {k: jnp.clip(raw / (norm(k) + 1e-4), *_LIMITS[k]) for k in names}
  )
