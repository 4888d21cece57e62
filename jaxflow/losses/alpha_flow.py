"""alpha-Flow and SoFlow: a step along the velocity, then the network's jump.

MeanFlow's derivative becomes a secant. From xt one step along the velocity v_g
leads to a middle time l of [s, t], from where the network jumps on to s:

  l = t - alpha (t - s),   xl = xt - (t - l) v_g                          (1)
  target = sg clip(alpha v_g + (1 - alpha) F(xl, l, s))                   (2)
  E = mean (F(xt, t, s) - target)^2                                       (3)

alpha = 1 is flow matching, without division by t - s. At alpha = 0, the limit
of the secant is MeanFlow's target, which is not clipped:

  target = sg(v_g - (t - s) du),  (u, du) = jvp(F; (xt, t, s), (v_g, 1, 0)) (4)

Flow rows (s = t) have the target v_g. The weights of interval rows are

  "alpha"     alpha (E + eps)^-p, without the factor where alpha = 0      (5)
  "solution"  (E / alpha^2 + eps)^-p / (2 alpha)                          (6)

and those of flow rows (E + eps)^-p. alpha-Flow lowers one alpha from 1 to 0
during training, with (5). SoFlow keeps one above 0 in every row, with (6).

References:
  alpha-Flow (arXiv:2510.20771) and its official code; SoFlow (arXiv:2512.15657)
  and its official code, whose loss has the same gradient and another value.
  Unlike alpha-Flow's code, rows without label are not guided, and the guidance
  interval contains its ends.
"""

from typing import Annotated, Literal

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
  PositiveShare,
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


def alpha_flow_loss(
  model_fn: JumpFn,
  key: Array,
  batch: Batch,
  *,
  path: Path,
  sample_times: times.PairSampler,
  ratio: times.Ratio,
  block: rows.Block = (4, 1),
  weighting: Literal["alpha", "solution"] = "alpha",
  norm_power: Amount = 1.0,
  norm_eps: Amount = 0.01,
  clip: Amount = 0.0,
  tangent_clip: Amount = 0.0,
  derivative: derivatives.Derivative = "jvp",
  difference_step: Positive = 0.005,
  omega: Annotated[Amount, Guides(off=1)] = 1.0,
  kappa: Annotated[BelowOne, Guides(off=0)] = 0.0,
  guidance_start: Amount = 0.0,
  guidance_end: Annotated[Amount, Above("guidance_start")] = 1.0,
  decay_start: PositiveShare = 1.0,
  label_dropout: LabelDropout = 0.0,
  null_cond: PyTree = None,
  teacher: Teacher | None = None,
  progress: Array | None = None,
) -> LossOutput:
  """Compute the alpha-Flow loss of each sample, eq. (1)-(6).

  Args:
    model_fn: The average velocity of [s, t]; where alpha may be 0, a JVP needs
      its forward-mode derivative. Others: see `jaxflow.losses`.
    ratio: alpha at a progress; see `times.ratios`.
    weighting: "alpha", eq. (5), or "solution", eq. (6).
    norm_eps: Added to the mean squared error, in its units.
    clip: Bound of the elements of the target of eq. (2); 0 is none.
    tangent_clip: Of eq. (4).
    derivative: How du of eq. (4) is computed; see `derivatives`.
    difference_step: Its step h, in units of t.
    omega: Guidance weight of the sample's velocity; see `velocity_targets`.
    kappa: Guidance weight of the network's velocity with its label.
    guidance_start: Smallest t that is guided.
    guidance_end: Largest t that is guided.
    decay_start: Time above which the guidance scale falls to 1; 1 is none.
    teacher: Guided itself: it excludes omega and kappa.

  Example:
    >>> net = lambda xt, t, s, cond: 0 * xt
    >>> batch = {"data": jnp.zeros((4, 3)), "noise": jnp.ones((4, 3))}
    >>> loss, _ = alpha_flow_loss(
    ...     net, jax.random.key(0), batch, path=paths.Linear(),
    ...     sample_times=times.SortedPair(law=times.Uniform()),
    ...     ratio=times.ConstantRatio(alpha=0.5), norm_power=0.0)
    >>> loss.tolist()  # alpha^2 of v^2, and alpha times it
    [0.125, 1.0, 1.0, 1.0]
  """
  time_key, noise_key, label_key = jax.random.split(key, 3)
  data, cond = batch["data"], batch.get("cond")
  rows.check_block(block, data.shape[0])
  derivatives.check(derivative)  # It is not used before alpha is 0.
  velocity_targets.check(cond, null_cond, teacher, omega=omega, kappa=kappa)
  noise = couplings.noise_of(batch, noise_key)
  cond = guidance.drop_labels(
    label_key, cond, rate=label_dropout, null_cond=null_cond
  )
  t, s = times.draw(sample_times, time_key, data, progress, of="pairs")
  xt = paths.interpolate(path, data, noise, t)
  (xt_i, t_i, s_i, cond_i), flow = rows.split((xt, t, s, cond), block)
  xt_f, t_f, _, cond_f = flow

  # A block of interval rows only leaves none, and networks take no empty batch.
  u_f = model_fn(xt_f, t_f, t_f, cond_f) if xt_f.size else xt_f
  v_i, target_f = velocity_targets.targets(
    model_fn,
    paths.velocity(path, data, noise, t),
    (xt, t, cond),
    block=block,
    omega=omega,
    kappa=kappa,
    interval=(guidance_start, guidance_end),
    decay_start=decay_start,
    null_cond=null_cond,
    teacher=teacher,
  )
  alpha = ratio(progress, t_i, s_i)

  def secant():
    a = expand(jnp.full_like(t_i, alpha), xt_i)
    gap = expand(t_i - s_i, xt_i)
    middle = t_i - alpha * (t_i - s_i)
    x_l = (xt_i - a * gap * v_i).astype(xt_i.dtype)
    jump = model_fn(x_l, middle, s_i, cond_i)
    target = a * v_i + (1 - a) * jump
    if clip:
      target = jnp.clip(target, -clip, clip)
    return model_fn(xt_i, t_i, s_i, cond_i), target, jnp.zeros_like(t_i)

  def limit():
    u, du = derivatives.along_flow(
      lambda xt, t: model_fn(xt, t, s_i, cond_i),
      *(xt_i, t_i, v_i),
      path=path,
      s=s_i,
      derivative=derivative,
      step=difference_step,
    )
    du, norm = weights.clip_norm(jax.lax.stop_gradient(du), limit=tangent_clip)
    target = v_i - expand(t_i - s_i, du) * du
    return u, target, norm.astype(t_i.dtype)

  has_limit = alpha == 0 if isinstance(alpha, float) else jnp.ndim(alpha) == 0
  if not has_limit:
    u_i, target, norm = secant()
  elif isinstance(alpha, float):
    u_i, target, norm = limit()
  else:
    u_i, target, norm = jax.lax.cond(alpha > 0, secant, limit)
  apart = t_i > s_i
  target = jnp.where(expand(apart, v_i), jax.lax.stop_gradient(target), v_i)
  error_i, error_f = weights.l2(u_i, target), weights.l2(u_f, target_f(u_f))

  alpha = jnp.where(apart, alpha, 1).astype(error_i.dtype)
  scale = jnp.where(alpha > 0, alpha, 1)
  eps, factor = norm_eps, scale
  if weighting == "solution":
    # The factors of eq. (6), apart from (E + alpha^2 eps)^-p.
    eps = scale**2 * norm_eps
    factor = jnp.where(apart, scale ** (2 * norm_power - 1) / 2, 1)
  elif weighting != "alpha":
    raise ValueError(f"weighting={weighting!r}: use alpha or solution")
  loss_i = factor * weights.adaptive(error_i, power=norm_power, eps=eps)
  loss_f = weights.adaptive(error_f, power=norm_power, eps=norm_eps)

  error = rows.merge(error_i, error_f, block)
  metrics = {
    "raw": error.mean(),
    "raw_interval": error_i.mean(),
    "alpha": alpha.mean(),
  }
  if has_limit:
    metrics["tangent_norm"] = norm.mean()
  if error_f.size:
    metrics["raw_flow"] = error_f.mean()
  return rows.merge(loss_i, loss_f, block), metrics
