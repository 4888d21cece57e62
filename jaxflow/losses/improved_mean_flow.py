"""Improved MeanFlow: regress the velocity, with guidance as an input.

The network has two heads, the average velocity u over [s, t] and the velocity
v^ at t. Its inputs include a guidance scale omega and the interval of times in
which it applies. With y the label, 0 the null label and v the path's velocity:

  w = omega if t_start <= t <= t_end else 1                               (1)
  v_0 = F_v(xt, t, t, {0, 1, [0, 1]}),  v_y = F_v(xt, t, t, {y, w, [0, 1]})
  v_g = v + (1 - 1/w) (v_y - v_0),  tangent v_y                           (2)
  v_g = v,                          tangent v_0    without label          (3)
  (u, v^), du = jvp(F(., ., ., cond); (xt, t, s), (sg tangent, 1, 0))     (4)
  V = u + (t - s) sg du                                                   (5)
  L = ad(V - sg v_g) + ad(v^ - sg v_g),  ad(e) = sg (E + eps)^-p E,
  E = sum e^2                                                             (6)

At the minimum v_g = v_0 + omega (v_y - v_0): the guided velocity.

A network of images gives its velocities through `predictions.from_data`. With
the same floor, v is (xt - data) / max(t, floor), and the jump to t = 0 is an
image, x0 = xt - t u, that terms of features may judge where t is small:

  L += w ad(distance(x0, data))   where t < perceptual_end                (7)

Flow rows (s = t) hold omega at all times, so there v_y is v^ itself, and V is
u. Only interval rows pay for the derivative and for v_y, whose forward shares
one batch with that of v_0. These need the second head only; XLA leaves out what
computes the first.

References:
  Geng et al. 2025 (arXiv:2512.02012), whose code has the tangent v_y of the
  dropped label on rows without label; Lu et al. 2026 (arXiv:2601.22158) and its
  official code for eq. (7), with LPIPS and a classifier.
"""

import functools
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow import couplings, guidance, paths, rows, times, weights
from jaxflow.losses import derivatives
from jaxflow.options import (
  Amount,
  AtLeastOne,
  Finite,
  Guides,
  Jumps,
  LabelDropout,
  Positive,
  Share,
  Term,
)
from jaxflow.paths import Path, expand
from jaxflow.types import Array, Batch, LossOutput, PyTree

# (xt, t, s, cond) -> (u, v), each of the shape of xt.
HeadsFn = Callable[[Array, Array, Array, PyTree], tuple[Array, Array]]


def improved_mean_flow_loss(
  model_fn: Annotated[HeadsFn, Jumps()],
  key: Array,
  batch: Batch,
  *,
  path: Path,
  sample_times: times.PairSampler,
  block: rows.Block = (2, 1),
  norm_power: Amount = 1.0,
  norm_eps: Amount = 0.01,
  tangent_clip: Amount = 0.0,
  derivative: derivatives.Derivative = "jvp",
  difference_step: Positive = 0.005,
  omega_max: Annotated[AtLeastOne, Guides(off=1, optional=True)] = 8.0,
  omega_power: Finite = 1.0,
  time_floor: Share = 0.0,
  perceptual: weights.Perceptual | None = None,
  perceptual_weight: Annotated[Amount, Term("perceptual")] = 0.0,
  classifier: weights.Perceptual | None = None,
  classifier_weight: Annotated[Amount, Term("classifier")] = 0.0,
  perceptual_end: Amount = 0.8,
  label_dropout: LabelDropout = 0.0,
  null_cond: PyTree = None,
) -> LossOutput:
  """Compute the improved MeanFlow loss of each sample, eq. (1)-(7).

  The metrics `raw` and `raw_v` are the means of E of the two heads.

  Args:
    model_fn: A network of two heads, with a forward-mode derivative for a JVP;
      its `cond` is that of `guidance.inputs`. Others: see `jaxflow.losses`.
    batch: Optional `cond`: labels, or a dict like the network's, whose guidance
      then takes the place of drawn guidance.
    path: A path with times in [0, 1].
    derivative: How du is computed; see `derivatives`.
    difference_step: Its step h, in units of t.
    omega_max: Largest omega.
    omega_power: Power of its law `guidance.scale_law`. On interval rows
      t_start is uniform in [0, 1/2], t_end in [1/2, 1].
    time_floor: Floor of v, that of `predictions.from_data`.
    perceptual: A distance of features, of eq. (7).
    perceptual_weight: Its weight; other than 0 it needs the distance.
    classifier: Another distance of features, of eq. (7).
    classifier_weight: Its weight; other than 0 it needs the distance.
    perceptual_end: Time from which on eq. (7) is 0.
    null_cond: None trains without labels.

  Example:
    >>> net = lambda xt, t, s, cond: (0 * xt, xt)
    >>> batch = {"data": jnp.ones((2, 3)), "noise": jnp.ones((2, 3))}
    >>> loss, _ = improved_mean_flow_loss(
    ...     net, jax.random.key(0), batch, path=paths.Linear(),
    ...     sample_times=times.SortedPair(law=times.Uniform()),
    ...     norm_power=0.0)
    >>> loss.tolist()
    [3.0, 3.0]
  """
  time_key, noise_key, label_key, guidance_key = jax.random.split(key, 4)
  data = batch["data"]
  given: Any = batch.get("cond")
  size = data.shape[0]
  rows.check_block(block, size)
  if path.t_min < 0 or path.t_max > 1:
    raise ValueError(
      f"path={path}: guidance intervals are parts of [0, 1]; give a path inside"
    )
  noise = couplings.noise_of(batch, noise_key)
  t, s = times.draw(sample_times, time_key, data, of="pairs")
  xt = paths.interpolate(path, data, noise, t)
  if not (guidance.is_inputs(given) and "omega" in given):
    u = times.uniform_draws(guidance_key, 3, size).astype(t.dtype)
    given = {
      "label": guidance.labels(given),
      "omega": guidance.scale_law(u[0], high=omega_max, power=omega_power),
      "t_start": u[1] / 2,
      "t_end": (1 + u[2]) / 2,
    }
  has_labels = given["label"] is not None and null_cond is not None
  cond = _everywhere(given, ~rows.is_interval(block, size))
  if has_labels:
    cond = guidance.drop_labels(
      label_key, cond, rate=label_dropout, null_cond=null_cond
    )
  s = jnp.where(rows.is_interval(block, size), s, t)
  points = xt, t, s, cond
  (xt_i, t_i, s_i, cond_i), _ = rows.split(points, block)

  inside = (cond["t_start"] <= t) & (t <= cond["t_end"])
  w = jnp.where(inside, cond["omega"], 1)
  of_labels = None
  if has_labels:
    told, _ = rows.split(_everywhere({**cond, "omega": w}), block)
    unlabelled = xt, t, t, _unguided(guidance.null(cond, null_cond))
    m, k = block
    (_, v_y), (_, v_0) = rows.side_by_side(
      model_fn, (xt_i, t_i, t_i, told), unlabelled, (m + k, k)
    )
    labelled = expand(guidance.is_labelled(cond["label"], null_cond), xt)
    labelled_i, v_0_i = rows.split((labelled, v_0), block)[0]
    tangent = jnp.where(labelled_i, v_y, v_0_i)
    of_labels = labelled, v_y, v_0
  else:
    _, tangent = model_fn(xt_i, t_i, t_i, _unguided(cond_i))

  (u, v), du = derivatives.along_flow_of_rows(
    model_fn,
    *(points, jax.lax.stop_gradient(tangent)),
    block=block,
    path=path,
    derivative=derivative,
    step=difference_step,
  )
  v_g = paths.velocity(path, data, noise, t)
  if time_floor:
    v_g = (xt - data) / expand(jnp.clip(t, time_floor, 1), xt)
  if of_labels is not None:
    labelled, v_y, v_0 = of_labels
    # On flow rows v_y is the second head of their own forward.
    v_y = rows.merge(v_y, rows.split(v, block)[1], block)
    guided = v_g + expand(1 - 1 / w, xt) * (v_y - v_0)
    v_g = jnp.where(labelled, guided, v_g)
  v_g = jax.lax.stop_gradient(v_g)

  (u_i, v_g_i), (u_f, v_g_f) = rows.split((u, v_g), block)
  du, norm = weights.clip_norm(du, limit=tangent_clip)
  error_i = weights.l2_sum(u_i + expand(t_i - s_i, du) * du, v_g_i)
  error_f = weights.l2_sum(u_f, v_g_f)
  error = rows.merge(error_i, error_f, block)
  error_v = weights.l2_sum(v, v_g)

  metrics = {
    "raw": error.mean(),
    "raw_v": error_v.mean(),
    "raw_interval": error_i.mean(),
    "tangent_norm": norm.mean(),
  }
  if error_f.size:
    metrics["raw_flow"] = error_f.mean()
  adapt = functools.partial(weights.adaptive, power=norm_power, eps=norm_eps)
  loss = adapt(error) + adapt(error_v)
  near = t < perceptual_end
  for name, weight, distance in (
    ("perceptual", perceptual_weight, perceptual),
    ("classifier", classifier_weight, classifier),
  ):
    if not weight:
      continue
    if distance is None:
      raise ValueError(
        f"{name}=None but its weight is {weight}: give the distance, or 0"
      )
    image = xt - expand(t, xt) * u
    term = jnp.where(near, distance(image, data), 0)
    loss = loss + weight * adapt(term)
    metrics[name] = term.mean()
  return loss, metrics


def _everywhere(cond: dict, where: np.ndarray | bool = True) -> dict:
  """Widen the guidance interval to [0, 1], on all rows or those of a mask."""
  return {
    **cond,
    "t_start": jnp.where(where, 0, cond["t_start"]),
    "t_end": jnp.where(where, 1, cond["t_end"]),
  }


def _unguided(cond: dict) -> dict:
  """Set the guidance scale to 1 at all times."""
  return _everywhere({**cond, "omega": jnp.ones_like(cond["omega"])})
