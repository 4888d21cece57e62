"""MeanFlow: learn the average velocity through its differential identity.

The average velocity over [s, t] is `u(xt, t, s) = (xt - xs) / (t - s)`.
Differentiating `(t - s) u` along the path gives the identity that the loss
enforces, with v the velocity (guided: v_g) as the tangent of xt:

  (u, du) = jvp(F; (xt, t, s), (v_g, 1, 0))                               (1)
  target = v_g - (t - s) du                                               (2)
  E = sum (u - sg target)^2,   L = sg (E + eps)^-p E                      (3)

v_g is that of `velocity_targets`: the sample's, guided by the network itself,
or a teacher's. Rows with s = t need no derivative: only the interval rows of a
static split pay for it.

With a teacher this is MeanFlow distillation, on a teacher's pairs rectified
MeanFlow.

References:
  Geng et al. 2025 (arXiv:2505.13447), eq. 6, 10, 11 and section 4.2, 4.3. The
  squared form is that of MF-RAE (official code); the mean over elements and
  pairs that of Re-MeanFlow (official code).
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from jaxflow import couplings, guidance, paths, rows, times, weights
from jaxflow.losses import derivatives, velocity_targets
from jaxflow.options import (
  Above,
  Amount,
  BelowOne,
  Guides,
  LabelDropout,
  Positive,
)
from jaxflow.paths import Path, expand
from jaxflow.types import (
  Array,
  Batch,
  JumpFn,
  LossOutput,
  PyTree,
  Teacher,
)


def mean_flow_loss(
  model_fn: JumpFn,
  key: Array,
  batch: Batch,
  *,
  path: Path,
  sample_times: times.PairSampler,
  block: rows.Block = (4, 1),
  norm_power: Amount = 1.0,
  norm_eps: Amount = 0.01,
  squared: bool = False,
  reduction: weights.Reduction = "sum",
  tangent_clip: Amount = 0.0,
  derivative: derivatives.Derivative = "jvp",
  difference_step: Positive = 0.005,
  omega: Annotated[Amount, Guides(off=1)] = 1.0,
  kappa: Annotated[BelowOne, Guides(off=0)] = 0.0,
  guidance_start: Amount = 0.0,
  guidance_end: Annotated[Amount, Above("guidance_start")] = 1.0,
  label_dropout: LabelDropout = 0.0,
  null_cond: PyTree = None,
  teacher: Teacher | None = None,
  dropped_rows: velocity_targets.DroppedRows = "sample",
) -> LossOutput:
  """Compute the MeanFlow loss of each sample, eq. (1)-(3).

  Args:
    model_fn: The average velocity of [s, t]; a JVP needs its forward-mode
      derivative. Others: see `jaxflow.losses`.
    squared: Whether E^2 takes the place of E in L, with eps in its units; the
      gradient is twice as large.
    reduction: Whether E is a sum or a mean over the elements of a sample.
    derivative: How du is computed; see `derivatives`.
    difference_step: Its step h, in units of t.
    omega: Guidance weight of the sample's velocity.
    kappa: Guidance weight of the network's velocity with its label.
    guidance_start: Smallest t that is guided.
    guidance_end: Largest t that is guided.
    teacher: Guided itself: it excludes omega and kappa.
    dropped_rows: Whether v_g of a row without label is its sample's velocity,
      or the teacher's without label.

  Example:
    >>> net = lambda xt, t, s, cond: 0 * xt
    >>> batch = {"data": jnp.zeros((4, 3)), "noise": jnp.ones((4, 3))}
    >>> loss, _ = mean_flow_loss(
    ...     net, jax.random.key(0), batch, path=paths.Linear(),
    ...     sample_times=times.SortedPair(law=times.Uniform()),
    ...     norm_power=0.0)
    >>> loss.tolist()
    [3.0, 3.0, 3.0, 3.0]
  """
  time_key, noise_key, label_key = jax.random.split(key, 3)
  data, cond = batch["data"], batch.get("cond")
  size = data.shape[0]
  rows.check_block(block, size)
  velocity_targets.check(cond, null_cond, teacher, omega=omega, kappa=kappa)
  noise = couplings.noise_of(batch, noise_key)
  cond = guidance.drop_labels(
    label_key, cond, rate=label_dropout, null_cond=null_cond
  )
  t, s = times.draw(sample_times, time_key, data, of="pairs")
  s = jnp.where(rows.is_interval(block, size), s, t)
  xt = paths.interpolate(path, data, noise, t)
  v_i, target_f = velocity_targets.targets(
    model_fn,
    paths.velocity(path, data, noise, t),
    (xt, t, cond),
    block=block,
    omega=omega,
    kappa=kappa,
    interval=(guidance_start, guidance_end),
    null_cond=null_cond,
    teacher=teacher,
    dropped_rows=dropped_rows,
  )
  u, du = derivatives.along_flow_of_rows(
    model_fn,
    (xt, t, s, cond),
    v_i,
    block=block,
    path=path,
    derivative=derivative,
    step=difference_step,
  )
  u_i, u_f = rows.split(u, block)
  (t_i, s_i), _ = rows.split((t, s), block)
  du, norm = weights.clip_norm(du, limit=tangent_clip)
  distance = weights.squares(reduction)
  error_i = distance(u_i, v_i - expand(t_i - s_i, du) * du)
  error_f = distance(u_f, target_f(u_f))

  error = rows.merge(error_i, error_f, block)
  metrics = {
    "raw": error.mean(),
    "raw_interval": error_i.mean(),
    "tangent_norm": norm.mean(),
  }
  if error_f.size:
    metrics["raw_flow"] = error_f.mean()
  size = error**2 if squared else error
  return weights.adaptive(size, power=norm_power, eps=norm_eps), metrics
