"""MeanFlow: learn the average velocity through its differential identity.

The average velocity over [s, t] is `u(xt, t, s) = (xt - xs) / (t - s)`.
Differentiating `(t - s) u` along the path gives the identity that the loss
enforces, with v the velocity (guided: v_g) as the tangent of xt:

  (u, du) = jvp(F; (xt, t, s), (v_g, 1, 0))                               (1)
  target = v_g - (t - s) du                                               (2)
  E = sum (u - sg target)^2,   L = sg (E + eps)^-p E                      (3)

Guidance is trained in, with the online network and no gradient, where t lies in
[guidance_start, guidance_end]; on label-dropped rows v_g = v:

  v_g = omega v + kappa F_y(xt, t, t) + (1 - omega - kappa) F_0(xt, t, t) (4)

The effective scale is omega / (1 - kappa). With a teacher, v_g is the (guided)
velocity of the teacher.

Rows with s = t need no derivative, and there F_y(xt, t, t) is u itself. So only
the interval rows of a static split pay for the JVP and for a conditional
forward, and the null forward of all rows shares one batch with the latter.

References:
  Geng et al. 2025 (arXiv:2505.13447), eq. 6, 10, 11 and section 4.2, 4.3;
  appendix A for kappa.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from jaxflow import couplings, guidance, paths, rows, times, weights
from jaxflow.options import (
  Above,
  Amount,
  BelowOne,
  Guides,
  LabelDropout,
)
from jaxflow.paths import Path, expand
from jaxflow.types import Array, Batch, LossOutput, ModelFn, PyTree, Teacher


def mean_flow_loss(
  model_fn: ModelFn,
  key: Array,
  batch: Batch,
  *,
  path: Path,
  sample_times: times.PairSampler,
  block: rows.Block = (4, 1),
  norm_power: Amount = 1.0,
  norm_eps: Amount = 0.01,
  tangent_clip: Amount = 0.0,
  omega: Annotated[Amount, Guides(off=1)] = 1.0,
  kappa: Annotated[BelowOne, Guides(off=0)] = 0.0,
  guidance_start: Amount = 0.0,
  guidance_end: Annotated[Amount, Above("guidance_start")] = 1.0,
  label_dropout: LabelDropout = 0.0,
  null_cond: PyTree = None,
  teacher: Teacher | None = None,
) -> LossOutput:
  """Compute the MeanFlow loss of each sample, eq. (1)-(4).

  Args:
    model_fn: The average velocity of [s, t]; it must have a forward-mode
      derivative. Others: see `jaxflow.losses`.
    omega: Guidance weight of the sample's velocity.
    kappa: Guidance weight of the network's conditional velocity.
    guidance_start: Smallest t that is guided.
    guidance_end: Largest t that is guided.
    teacher: Guided itself: it excludes omega and kappa.

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
  guided = (omega, kappa) != (1.0, 0.0)
  if guided and (cond is None or null_cond is None):
    raise ValueError(
      f"omega={omega}, kappa={kappa} guide by labels: give labels in `cond` "
      "and null_cond, or set omega=1, kappa=0"
    )
  if guided and teacher is not None:
    raise ValueError(
      f"omega={omega}, kappa={kappa}: a teacher is guided itself; set omega=1, "
      "kappa=0 and guide the teacher"
    )
  noise = couplings.noise_of(batch, noise_key)
  cond = guidance.drop_labels(
    label_key, cond, rate=label_dropout, null_cond=null_cond
  )
  t, s = times.draw(sample_times, time_key, data)
  xt = paths.interpolate(path, data, noise, t)
  interval, flow = rows.split((xt, t, s, cond), block)
  xt_i, t_i, s_i, cond_i = interval
  xt_f, t_f, _, cond_f = flow

  # A block of interval rows only leaves none, and networks take no empty batch.
  u_f = model_fn(xt_f, t_f, t_f, cond_f) if xt_f.size else xt_f

  v = v_g = paths.velocity(path, data, noise, t)
  if teacher is not None:
    v_g = teacher(xt, t, t, cond)
  elif guided:
    unlabelled = xt, t, t, guidance.null(cond, null_cond)
    if kappa == 0:
      labelled, null = 0, model_fn(*unlabelled)
    else:
      m, k = block
      label_i, null = rows.side_by_side(
        model_fn, (xt_i, t_i, t_i, cond_i), unlabelled, (m + k, k)
      )
      # On flow rows F_y is their own forward.
      labelled = rows.merge(label_i, u_f, block)
    v_g = omega * v + kappa * labelled + (1 - omega - kappa) * null
    inside = guidance.inside_interval(t, guidance_start, guidance_end)
    v_g = jnp.where(expand(inside, v), v_g, v)
  if v_g is not v and null_cond is not None and cond is not None:
    has_label = guidance.is_labelled(guidance.labels(cond), null_cond)
    v_g = jnp.where(expand(has_label, v), v_g, v)
  # The target is a constant: a gradient through it would double the cost and
  # minimise another objective.
  v_i, v_f = rows.split(jax.lax.stop_gradient(v_g), block)

  u_i, du = jax.jvp(
    lambda xt, t, s: model_fn(xt, t, s, cond_i),
    (xt_i, t_i, s_i),
    (v_i.astype(xt_i.dtype), jnp.ones_like(t_i), jnp.zeros_like(s_i)),
  )
  du, norm = weights.clip_norm(jax.lax.stop_gradient(du), limit=tangent_clip)
  error_i = weights.l2_sum(u_i, v_i - expand(t_i - s_i, du) * du)
  error_f = weights.l2_sum(u_f, v_f)

  error = rows.merge(error_i, error_f, block)
  metrics = {
    "raw": error.mean(),
    "raw_interval": error_i.mean(),
    "tangent_norm": norm.mean(),
  }
  if error_f.size:
    metrics["raw_flow"] = error_f.mean()
  return weights.adaptive(error, power=norm_power, eps=norm_eps), metrics
