"""Lagrangian self-distillation and terminal velocity matching.

The end of a jump along the average velocity F moves, as a function of its end
time s, with the velocity there. With q the target network, w the guidance
scale, and c = w for a network of the velocity over w, else 1:

  f = xt - (t - s) c F(xt, t, s)                                          (1)
  slope = d_s f = c (F - (t - s) d_s F),   d_s F = jvp(F(xt, t, .); s; 1) (2)
  target = sg c F_q(sg f, s, s)                                           (3)
  E = R((slope - target) / w),   0 where s = t          terminal term     (4)

and on the diagonal F is the velocity, v that of the sample at a time r:

  v_g = w v + (1 - w) F_q(xr, r, r, null)                                 (5)
  E_v = R((c F(xr, r, r) - sg v_g) / w)                 flow term         (6)

R is the sum or the mean of the squares. On rows without label w = 1. A learned
log-weight W weighs either term at its times:

  L = e^W E - W                                                           (7)

Of a block (m, k) with k < m, interval rows carry (4), flow rows (6): this is
Lagrangian self-distillation, with q the network itself, w = 1 and the sum. With
k = m every row carries both, of the same data and noise: this is terminal
velocity matching, with q an EMA, w an input of the network and the mean.

No velocity of a sample enters (4): it is unbiased without being a regression.
Its gradient passes through F and d_s F, so interval rows alone pay for the
second derivative; the tangent has no part in xt.

References:
  Boffi, Albergo, Vanden-Eijnden 2025 (arXiv:2505.18825); Zhou, Parger, Haque,
  Song 2025 (arXiv:2511.19797).
"""

from typing import Annotated, Any

import jax
import jax.numpy as jnp

from jaxflow import couplings, guidance, paths, rows, times, weights
from jaxflow.options import (
  AtLeastOne,
  Guides,
  LabelDropout,
  SharedWithFlowMap,
)
from jaxflow.paths import Path, expand
from jaxflow.types import Array, Batch, JumpFn, LossOutput, ModelFn, PyTree


def lagrangian_loss(
  model_fn: JumpFn,
  key: Array,
  batch: Batch,
  *,
  path: Path,
  sample_times: times.PairSampler,
  flow_times: times.Law | None = None,
  block: rows.Block = (4, 1),
  target_fn: ModelFn | None = None,
  reduction: weights.Reduction = "sum",
  log_weight: weights.PairLogWeight | None = None,
  omega: Annotated[
    AtLeastOne, Guides(off=1, optional=True), SharedWithFlowMap()
  ] = 1.0,
  omega_input: bool = False,
  scale_output: Annotated[bool, SharedWithFlowMap()] = False,
  label_dropout: LabelDropout = 0.0,
  null_cond: PyTree = None,
) -> LossOutput:
  """Compute the Lagrangian loss of each sample, eq. (4), (6) and (7).

  The metrics `raw_interval` and `raw_flow` are the means of (4) and (6), `raw`
  of what a row carries; `tangent_norm` is of d_s F.

  Args:
    model_fn: The average velocity of [s, t]; it must have a forward-mode
      derivative in s. Others: see `jaxflow.losses`.
    batch: `cond` may be a dict with "label" and "omega", which then takes the
      place of `omega`.
    flow_times: Law of r; by default r is the t of the row's pair.
    block: With k = m every row carries both terms.
    reduction: R of eq. (4) and (6) over the elements of a sample.
    log_weight: `(t [B], s [B]) -> W [B]`, with parameters of its own;
      default: 0.
    omega: w of the rows that have a label.
    omega_input: Whether w is an input of the network, whose `cond` is then
      that of `guidance.inputs`. Without labels w is such an input and no more.
    scale_output: Whether c = w; it needs `omega_input`.

  Example:
    >>> net = lambda xt, t, s, cond: 0 * xt          # exact for one still point
    >>> batch = {"data": jnp.zeros((4, 3)), "noise": jnp.ones((4, 3))}
    >>> loss, _ = lagrangian_loss(
    ...     net, jax.random.key(0), batch, path=paths.Linear(),
    ...     sample_times=times.SortedPair(law=times.Uniform()))
    >>> loss.tolist()
    [0.0, 3.0, 3.0, 3.0]
  """
  if scale_output and not omega_input:
    raise ValueError(
      "scale_output=True scales the network by its guidance input: set "
      "omega_input=True, or scale_output=False"
    )
  time_key, flow_key, noise_key, label_key = jax.random.split(key, 4)
  data = batch["data"]
  rows.check_block(block, data.shape[0])
  cond: Any = guidance.drop_labels(
    label_key, batch.get("cond"), rate=label_dropout, null_cond=null_cond
  )
  noise = couplings.noise_of(batch, noise_key)
  t, s = times.draw(sample_times, time_key, data, of="pairs")
  r = (
    t
    if flow_times is None
    else times.draw(flow_times, flow_key, data, of="times")
  )

  label = guidance.labels(cond)
  has_labels = label is not None and null_cond is not None
  fed = guidance.is_inputs(cond) and "omega" in cond
  if omega != 1 and not (has_labels or omega_input):
    raise ValueError(
      f"omega={omega} guides by labels: give labels in `cond` and null_cond, "
      "or set omega=1"
    )
  w = jnp.asarray(cond["omega"], t.dtype) if fed else jnp.full_like(t, omega)
  if has_labels:
    w = jnp.where(guidance.is_labelled(label, null_cond), w, 1)
  if omega_input:
    cond = guidance.inputs(label, t, omega=w)
  else:
    cond = label
  distance = weights.squares(reduction)
  q = target_fn or model_fn

  def scaled(x, w):
    return expand(w, x) * x if scale_output else x

  xt, xr = (paths.interpolate(path, data, noise, time) for time in (t, r))
  v = paths.velocity(path, data, noise, r)
  every = t, s, r, w, cond, xt, xr, v
  interval, flow = rows.split(every, block)
  # Where the block leaves no flow rows, all rows carry the flow term.
  both = block[0] == block[1]
  t, s, _, w, cond, xt, _, _ = interval
  _, _, r, w_r, cond_r, _, xr, v = every if both else flow

  u, du = jax.jvp(lambda s: model_fn(xt, t, s, cond), (s,), (jnp.ones_like(s),))
  gap = expand(t - s, u)
  slope = scaled(u - gap * du, w)
  end = jax.lax.stop_gradient(xt - gap * scaled(u, w))
  target = jax.lax.stop_gradient(scaled(q(end, s, s, cond), w))
  apart = t != s
  terminal = jnp.where(apart, distance(slope, target) / w**2, 0)

  v_g = v
  if has_labels and (fed or omega != 1):
    null = guidance.null(cond_r, null_cond)
    if omega_input:
      null = {**null, "omega": jnp.ones_like(w_r)}
    scale = expand(w_r, v)
    v_g = scale * v + (1 - scale) * q(xr, r, r, null)
  v_g = jax.lax.stop_gradient(v_g)
  error = distance(scaled(model_fn(xr, r, r, cond_r), w_r), v_g) / w_r**2

  def joined(terminal, flow):
    return terminal + flow if both else rows.merge(terminal, flow, block)

  loss = joined(terminal, error)
  norm = jnp.sqrt(weights.sample_sum(jax.lax.stop_gradient(du) ** 2))
  metrics = {
    "raw": loss.mean(),
    "raw_interval": terminal.mean(),
    "raw_flow": error.mean(),
    "tangent_norm": norm.mean(),
  }
  if log_weight is not None:
    weight, weight_r = log_weight(t, s), log_weight(r, r)
    # A row that has no terminal term must not raise its weight either.
    terminal = jnp.where(apart, weights.learned(terminal, weight), 0)
    loss = joined(terminal, weights.learned(error, weight_r))
    metrics["log_weight"] = (weight.mean() + weight_r.mean()) / 2
  return loss, metrics
