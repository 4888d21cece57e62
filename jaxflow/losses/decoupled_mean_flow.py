"""Decoupled MeanFlow: a flow that learns to jump, each row with both terms.

The network is a velocity at s = t, that of flow matching, and an average
velocity below. Every sample carries a flow term, at a time r and with noise of
its own, and MeanFlow's term at a pair (t, s). Noise that the batch brings is of
both terms: of a sample there is one such pair.

  E_v = mean (F(xr, r, r) - sg v_g)^2                                     (1)
  (u, du) = jvp(F; (xt, t, s), (v_g, 1, 0))                               (2)
  E = mean (u - sg(v_g - (t - s) du))^2                                   (3)
  L = (rho(E_v, W(r, r)) + rho(E, W(t, s))) / 2                           (4)
  rho(E, W) = ln(e^W E + eps) - W                                         (5)

W is a learned log-weight. v_g is the sample's velocity, guided by the network
itself on rows with a label, v + kappa (F_y - F_0), or a teacher's. As F learns
v_g, its own guidance enters again: F_y - F_0 grows to 1 / (1 - kappa) times
that of the velocities, which is the guidance scale.

A transformer whose later blocks see s in place of t (`model.second_time_from`)
has the parameters of a flow: its training goes on from one.

References:
  Lee, Yu, Shin 2025 (arXiv:2510.24474); in the official code the weights of all
  rows meet the errors of all rows by broadcasting; here row by row.
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

# Rows of the two terms stand side by side.
_PAIRED = (2, 1)


def decoupled_mean_flow_loss(
  model_fn: JumpFn,
  key: Array,
  batch: Batch,
  *,
  path: Path,
  sample_times: times.PairSampler,
  flow_times: times.Law,
  norm_eps: Positive = 0.01,
  log_weight: weights.PairLogWeight | None = None,
  kappa: Annotated[BelowOne, Guides(off=0)] = 0.0,
  guidance_start: Amount = 0.0,
  guidance_end: Annotated[Amount, Above("guidance_start")] = 1.0,
  derivative: derivatives.Derivative = "jvp",
  difference_step: Positive = 0.005,
  label_dropout: LabelDropout = 0.0,
  null_cond: PyTree = None,
  teacher: Teacher | None = None,
) -> LossOutput:
  """Compute the decoupled MeanFlow loss of each sample, eq. (1)-(5).

  Args:
    model_fn: The average velocity of [s, t]. Others: see `jaxflow.losses`.
    batch: Optional `noise_flow`, the noise of the flow term; default: the
      `noise` of the batch, drawn anew if there is none.
    flow_times: Law of r.
    norm_eps: eps of eq. (5), in units of the mean squared error.
    log_weight: `(t [B], s [B]) -> W [B]`, with parameters of its own;
      default: 0.
    kappa: Guidance weight; the effective scale is 1 / (1 - kappa).
    guidance_start: Smallest t that is guided.
    guidance_end: Largest t that is guided.
    derivative: How du is computed; see `derivatives`.
    difference_step: Its step h, in units of t.
    teacher: Guided itself: it excludes kappa.

  Example:
    >>> net = lambda xt, t, s, cond: 0 * xt
    >>> batch = {"data": jnp.zeros((2, 3)), "noise": jnp.ones((2, 3)),
    ...          "noise_flow": jnp.ones((2, 3))}
    >>> loss, _ = decoupled_mean_flow_loss(
    ...     net, jax.random.key(0), batch, path=paths.Linear(),
    ...     sample_times=times.SortedPair(law=times.Uniform()),
    ...     flow_times=times.Uniform(), norm_eps=1.0)
    >>> [round(x, 4) for x in loss.tolist()]  # ln 2
    [0.6931, 0.6931]
  """
  time_key, flow_key, noise_key, other_key, label_key = jax.random.split(key, 5)
  data, cond = batch["data"], batch.get("cond")
  velocity_targets.check(cond, null_cond, teacher, omega=1.0, kappa=kappa)
  cond = guidance.drop_labels(
    label_key, cond, rate=label_dropout, null_cond=null_cond
  )
  noise = couplings.noise_of(batch, noise_key)
  noise_flow = couplings.second_noise_of(batch, "noise_flow", other_key)
  t, s = times.draw(sample_times, time_key, data, of="pairs")
  r = times.draw(flow_times, flow_key, data, of="times")
  xt = paths.interpolate(path, data, noise, t)
  xr = paths.interpolate(path, data, noise_flow, r)

  v, points = rows.merge(
    (paths.velocity(path, data, noise, t), (xt, t, s, cond)),
    (paths.velocity(path, data, noise_flow, r), (xr, r, r, cond)),
    _PAIRED,
  )
  x, time, _, conds = points
  v_g, target_f = velocity_targets.targets(
    model_fn,
    *(v, (x, time, conds)),
    block=_PAIRED,
    omega=1.0,
    kappa=kappa,
    interval=(guidance_start, guidance_end),
    null_cond=null_cond,
    teacher=teacher,
  )
  u, du = derivatives.along_flow_of_rows(
    model_fn,
    *(points, v_g),
    block=_PAIRED,
    path=path,
    derivative=derivative,
    step=difference_step,
  )
  u, u_f = rows.split(u, _PAIRED)
  error = weights.l2(u, v_g - expand(t - s, du) * du)
  error_f = weights.l2(u_f, target_f(u_f))

  w = w_f = jnp.zeros_like(error)
  if log_weight is not None:
    w, w_f = log_weight(t, s), log_weight(r, r)
  jump, flow = (
    weights.log_cauchy(e, log_weight=x, eps=norm_eps)
    for e, x in ((error, w), (error_f, w_f))
  )
  metrics = {
    "raw": (error.mean() + error_f.mean()) / 2,
    "raw_interval": error.mean(),
    "raw_flow": error_f.mean(),
    "tangent_norm": jnp.sqrt(weights.sample_sum(du**2)).mean(),
  }
  if log_weight is not None:
    metrics["log_weight"] = (w.mean() + w_f.mean()) / 2
  return (jump + flow) / 2, metrics
