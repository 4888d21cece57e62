"""TwinFlow: one network is the flow of the data and that of its own samples.

At times t > 0 the network F is an average velocity of the data's flow, at t < 0
the velocity of the flow of its own samples, so distributions are matched
without a second network. With v the velocity of the sample, q the target
network (an EMA), F_y, F_0 with and without label:

  v_g = v + kappa (q_y(xt, t, t) - q_0(xt, t, t))                         (1)

An any-step loss is the base. A step h along v_g leads to a middle time; from
there N equal jumps lead to s, jump i from a to b:

  m = max(t - h, s),  z = xt - h v_g,  z <- z - (a - b) q(z, a, b),
  acc = sum_i (a - b) q(z, a, b)                                          (2)
  B(u) = ((t - s) u - acc) / h - v_g,   u - v_g where t - s < h           (3)
  T(u) = sg (u - clip(B(u)))                                              (4)
  L_base = mean (u - T(u))^2,   u = F(xt, t, s)                           (5)

The twin terms are of one call from noise, u1 = F(noise, t_max, t_min), that
makes x = sg (noise - (t_max - t_min) u1). With xf the point at t between x and
that same noise, w their velocity, and x' the point at t' between x and fresh
noise:

  L_real = mean (F(xt, t, t) - v_g)^2,
  L_fake = mean (F(xf, -t, -t) - w)^2                                     (6)
  g = sg (F(x', -t', -t') - F(x', t', t')),
  L_rectify = mean (u1 - sg (u1 - g))^2                                   (7)
  L_one = mean (u1 - T(u1))^2,  T from noise at t_max to t_min            (8)
  L = L_base + L_real + L_fake + L_rectify + L_one                        (9)

g is the difference of two velocities, hence of two scores: u1 moves samples
from their own law towards that of the data. Where t - s < h, no jump is left,
and acc = 0.

References:
  Cheng, Sun, Li, Lin 2025 (arXiv:2512.05150).
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from jaxflow import couplings, guidance, paths, rows, times, weights
from jaxflow.options import (
  Amount,
  BelowOne,
  Count,
  Guides,
  LabelDropout,
  Positive,
)
from jaxflow.paths import Path, expand
from jaxflow.types import Array, Batch, JumpFn, LossOutput, ModelFn, PyTree


def twin_flow_loss(
  model_fn: JumpFn,
  key: Array,
  batch: Batch,
  *,
  path: Path,
  sample_times: times.PairSampler,
  rectify_times: times.Law | None = None,
  twin: bool = True,
  block: rows.Block = (1, 1),
  target_fn: ModelFn | None = None,
  order: Count = 2,
  step_size: Positive = 0.01,
  clip: Amount = 1.0,
  kappa: Annotated[BelowOne, Guides(off=0)] = 0.0,
  label_dropout: LabelDropout = 0.0,
  null_cond: PyTree = None,
) -> LossOutput:
  """Compute the TwinFlow loss of each sample, eq. (9).

  The metrics `raw_base`, `raw_real`, `raw_fake`, `raw_rectify` and
  `raw_one_step` are the means of its terms.

  Args:
    model_fn: A network of times in [-t_max, t_max]. Others: see
      `jaxflow.losses`.
    batch: Optional `noise_rectify`, the fresh noise of eq. (7).
    rectify_times: Law of t'; default: the t of further draws of `sample_times`.
    twin: Whether there are terms beside L_base.
    block: Of every m rows the first k have twin terms, weighted by m / k.
    order: N of eq. (2).
    step_size: h, in units of t.
    clip: Bound of each element of B, in data units; 0 is none.
    kappa: Guidance weight of eq. (1); the effective scale is 1 / (1 - kappa).

  Example:
    >>> net = lambda xt, t, s, cond: 0 * xt
    >>> batch = {"data": jnp.zeros((2, 3)), "noise": jnp.ones((2, 3)) / 2}
    >>> loss, metrics = twin_flow_loss(
    ...     net, jax.random.key(0), batch, path=paths.Linear(),
    ...     sample_times=times.SortedPair(law=times.Uniform()))
    >>> metrics["raw_real"].item(), metrics["raw_fake"].item()
    (0.25, 0.0)
  """
  if kappa and (batch.get("cond") is None or null_cond is None):
    raise ValueError(
      f"kappa={kappa} guides by labels: give labels in `cond` and null_cond, "
      "or set kappa=0"
    )
  data = batch["data"]
  rows.check_block(block, data.shape[0])
  time_key, noise_key, label_key, rectify_key = jax.random.split(key, 4)
  noise = couplings.noise_of(batch, noise_key)
  cond = guidance.drop_labels(
    label_key, batch.get("cond"), rate=label_dropout, null_cond=null_cond
  )
  t, s = times.draw(sample_times, time_key, data, of="pairs")
  xt = paths.interpolate(path, data, noise, t)
  q = target_fn or model_fn

  v = paths.velocity(path, data, noise, t)
  if kappa:
    # Rows without label keep v: for them both calls are one.
    unlabelled = guidance.null(cond, null_cond)
    v = v + kappa * (q(xt, t, t, cond) - q(xt, t, t, unlabelled))
  v = jax.lax.stop_gradient(v)

  def any_step(u, x, t, s, v, cond):
    """Return eq. (5) of u, the average velocity from x at t to s."""
    start = jnp.maximum(t - step_size, s)
    z, acc = x - step_size * v, jnp.zeros_like(x)
    for i in range(order):
      a, b = (start + (s - start) * (k / order) for k in (i, i + 1))
      move = expand(a - b, z) * q(z, a, b, cond)
      z, acc = z - move, acc + move
    long = (expand(t - s, u) * u - acc) / step_size - v
    residual = jnp.where(expand(t - s < step_size, u), u - v, long)
    if clip:
      residual = jnp.clip(residual, -clip, clip)
    return weights.l2(u, jax.lax.stop_gradient(u - residual))

  loss = any_step(model_fn(xt, t, s, cond), xt, t, s, v, cond)
  terms = {"base": loss}
  if twin:
    fresh_key, fresh_noise_key = jax.random.split(rectify_key)
    fresh = batch.get("noise_rectify")
    if fresh is None:
      fresh = paths.standard_normal(fresh_noise_key, data.shape, data.dtype)
    if rectify_times is None:
      other, _ = times.draw(sample_times, fresh_key, data, of="pairs")
    else:
      other = times.draw(rectify_times, fresh_key, data, of="times")
    given, _ = rows.split((xt, t, noise, v, cond, other, fresh), block)
    xt, t, noise, v, cond, other, fresh = given
    # Of their own samples, at the time that is the mirror image.
    start = paths.start(path, noise)
    first, last = jnp.full_like(t, path.t_max), jnp.full_like(t, path.t_min)
    u1 = model_fn(start, first, last, cond)
    x = jax.lax.stop_gradient(start - expand(first - last, u1) * u1)
    xf, xr = (
      paths.interpolate(path, x, *given)
      for given in ((noise, t), (fresh, other))
    )
    w = paths.velocity(path, x, noise, t)
    g = model_fn(xr, -other, -other, cond) - model_fn(xr, other, other, cond)
    twins = {
      "real": weights.l2(model_fn(xt, t, t, cond), v),
      "fake": weights.l2(model_fn(xf, -t, -t, cond), w),
      "rectify": weights.l2(u1, jax.lax.stop_gradient(u1 - g)),
      "one_step": any_step(u1, start, first, last, v, cond),
    }
    terms |= twins
    m, k = block
    both, alone = rows.split(loss, block)
    loss = rows.merge(both + m / k * sum(twins.values()), alone, block)
  metrics = {"raw": loss.mean()}
  return loss, metrics | {f"raw_{k}": x.mean() for k, x in terms.items()}
