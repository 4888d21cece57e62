"""Flow-anchored consistency: a consistency loss that flow matching holds.

One network has two branches: the velocity a at t, and the average velocity b
of [0, t], whose jumps end on data. In two times a = F(xt, t, t), b = F(xt, t,
0). A network of one time has the first branch at negative times, the expanded
form: a = F(xt, -t), b = F(xt, t). With v the velocity of the sample or of a
teacher, o the velocity that guides, and channels on the last axis:

  v_g = o + omega (v - o)                                                 (1)
  L_flow = mean (a - v_g)^2 + mean (1 - cos(a, v_g))                      (2)
  (b, db) = jvp(b; (xt, t), (v_g, 1)),   g = sg (b - v_g + t db)          (3)
  target = sg (b - (1 - (1 - t)^p) clip(g))                               (4)
  e = mean (b - target)^2,   L = sin(pi t / 2) sg (e + eps)^-q e + L_flow (5)

The cosine is of the channels, its mean over the other axes. o is the teacher
under the null label, or, without a teacher, branch a under it with no gradient;
at times outside of [guidance_start, guidance_end] it has the sample's label
instead. On rows without label v_g = v.

References:
  Peng et al. 2025 (arXiv:2507.03738).
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from jaxflow import couplings, guidance, paths, times, weights
from jaxflow.losses import derivatives
from jaxflow.options import (
  Above,
  Amount,
  Guides,
  GuidesTeacher,
  LabelDropout,
  OneTime,
  Positive,
)
from jaxflow.paths import Path, expand
from jaxflow.types import Array, Batch, LossOutput, ModelFn, PyTree, Teacher


def flow_anchored_consistency_loss(
  model_fn: ModelFn,
  key: Array,
  batch: Batch,
  *,
  path: Path,
  sample_times: times.TimeSampler,
  teacher: Teacher | None = None,
  expanded: Annotated[bool, OneTime()] = False,
  relaxation: Positive = 0.5,
  clip: Amount = 1.0,
  norm_power: Amount = 0.5,
  norm_eps: Amount = 0.001,
  derivative: derivatives.Derivative = "jvp",
  difference_step: Positive = 0.005,
  omega: Annotated[Amount, Guides(off=1), GuidesTeacher(off=1)] = 1.0,
  guidance_start: Amount = 0.0,
  guidance_end: Annotated[Amount, Above("guidance_start")] = 0.875,
  label_dropout: LabelDropout = 0.0,
  null_cond: PyTree = None,
) -> LossOutput:
  """Compute the flow-anchored consistency loss of each sample, eq. (5).

  The metric `raw` is the mean of e, `raw_flow` that of eq. (2), `tangent_norm`
  of db.

  Args:
    model_fn: The average velocity of [s, t], or with `expanded` the network of
      both branches; a JVP needs its forward-mode derivative. Others: see
      `jaxflow.losses`.
    path: A path with times in [0, 1].
    teacher: Without one, the velocity of the pair takes its place.
    expanded: Whether branch a is asked at -t, of a network of one time.
    relaxation: p of eq. (4); a small one holds back where t is small.
    clip: Bound of each element of g, in data units; 0 is none.
    norm_power: q of eq. (5).
    norm_eps: eps of eq. (5), whose e is a mean.
    derivative: How db is computed; see `derivatives`.
    difference_step: Its step h, in units of t.
    omega: Guidance scale of eq. (1); 1 is none.
    guidance_start: Smallest t that is guided.
    guidance_end: Largest t that is guided.

  Example:
    >>> net = lambda xt, t, s, cond: xt / t[:, None]     # exact for data = 0
    >>> loss, _ = flow_anchored_consistency_loss(
    ...     net, jax.random.key(0), {"data": jnp.zeros((2, 4))},
    ...     path=paths.Linear(), sample_times=times.Uniform(t_min=0.5))
    >>> (jnp.abs(loss) < 1e-5).all().item()
    True
  """
  if path.t_min < 0 or path.t_max > 1:
    raise ValueError(
      f"path={path}: its weights are of times in [0, 1]; give a path inside"
    )
  time_key, noise_key, label_key = jax.random.split(key, 3)
  data = batch["data"]
  noise = couplings.noise_of(batch, noise_key)
  cond = guidance.drop_labels(
    label_key, batch.get("cond"), rate=label_dropout, null_cond=null_cond
  )
  if omega != 1 and (cond is None or null_cond is None):
    raise ValueError(
      f"omega={omega} guides by labels: give labels in `cond` and null_cond, "
      "or set omega=1"
    )
  t = times.draw(sample_times, time_key, data, of="times")
  end = jnp.full_like(t, path.t_min)
  xt = paths.interpolate(path, data, noise, t)

  def branch(xt, t, cond):
    time = -t if expanded else t
    return model_fn(xt, time, time, cond)

  def taught(xt, t, cond):
    return branch(xt, t, cond) if teacher is None else teacher(xt, t, t, cond)

  v = paths.velocity(path, data, noise, t)
  if teacher is not None:
    v = teacher(xt, t, t, cond)
  if omega != 1:
    label, none = guidance.labels(cond), guidance.null(cond, null_cond)
    inside = guidance.inside_interval(t, guidance_start, guidance_end)
    other = jax.tree.map(
      lambda x, none: jnp.where(expand(inside, x), none, x),
      *(label, guidance.labels(none)),
    )
    o = taught(xt, t, guidance.replace_labels(cond, other))
    has_label = guidance.is_labelled(label, null_cond)
    v = jnp.where(expand(has_label, v), o + omega * (v - o), v)
  v = jax.lax.stop_gradient(v).astype(xt.dtype)

  a = branch(xt, t, cond)
  flow = weights.l2(a, v) + _cosine_distance(a, v)

  b, db = derivatives.along_flow(
    lambda xt, t: model_fn(xt, t, end, cond),
    *(xt, t, v),
    path=path,
    derivative=derivative,
    step=difference_step,
  )
  constant, db = jax.lax.stop_gradient((b, db))
  g = constant - v + expand(t - end, db) * db
  if clip:
    g = jnp.clip(g, -clip, clip)
  share = 1 - (1 - t) ** relaxation
  error = weights.l2(b, constant - expand(share, g) * g)
  weighted = weights.adaptive(error, power=norm_power, eps=norm_eps)
  metrics = {
    "raw": error.mean(),
    "raw_flow": flow.mean(),
    "tangent_norm": jnp.sqrt(weights.sample_sum(db**2)).mean(),
  }
  return jnp.sin(jnp.pi / 2 * t) * weighted + flow, metrics


def _cosine_distance(a: Array, b: Array) -> Array:
  """Return 1 - cos of the last axes, averaged over the others, `[B]`."""
  if a.ndim == 1:  # One number a sample is one channel.
    a, b = a[:, None], b[:, None]
  square = (a**2).sum(-1) * (b**2).sum(-1)
  # A new network predicts 0, where the cosine has no direction and no slope.
  there = square > 0
  root = jnp.sqrt(jnp.where(there, square, 1))
  cosine = jnp.where(there, (a * b).sum(-1) / root, 0)
  return 1 - cosine.reshape(len(cosine), -1).mean(axis=1)
