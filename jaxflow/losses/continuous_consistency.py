"""Consistency training and distillation in continuous time.

On the angular path, `Trigonometric(t_max=pi / 2, noise_std=sd)` with sd the
standard deviation of the data, the velocity network u = sd F is the derivative
along a circle and the consistency function is `flow_maps.trigonometric`:

  xt = cos t data + sin t sd noise                                        (1)
  f = cos t xt - sin t u(xt, t)                                           (2)

With v the velocity of the pair (training) or of a teacher (distillation), the
derivative of f along the trajectory, times cos t, is the tangent

  (u, J) = jvp(u; (xt, t), (cos t sin t v, cos t sin t))                  (3)
  g = -cos^2 t (sg u - v) - r (cos t sin t xt + sg J)                     (4)
  r = min(1, progress / warmup)                                           (5)

and the loss moves F against it, with a learned log-weight w(t):

  L = e^w mean (F - sg F - g / (||g|| + c))^2 - w                         (6)

One JVP gives u and J, so that both see the same dropout mask; J is not
differentiated. Pretraining u (TrigFlow) is flow matching on the same path.

References:
  Lu, Song 2024 (arXiv:2410.11081), sections 3 and 4, algorithm 1.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp

from jaxflow import couplings, paths, times, weights
from jaxflow.losses import derivatives
from jaxflow.options import Amount, Positive, Share
from jaxflow.paths import expand
from jaxflow.types import Array, Batch, LossOutput, ModelFn, Teacher


def continuous_consistency_loss(
  model_fn: ModelFn,
  key: Array,
  batch: Batch,
  *,
  path: paths.Trigonometric,
  sample_times: times.TimeSampler,
  teacher: Teacher | None = None,
  warmup: Share = 0.025,
  normalization: Literal["l2", "rms"] = "l2",
  c: Amount = 0.1,
  derivative: derivatives.Derivative = "jvp",
  difference_step: Positive = 0.005,
  log_weight: weights.LogWeight | None = None,
  progress: Array | None = None,
) -> LossOutput:
  """Compute the continuous-time consistency loss of each sample, eq. (6).

  The metric `raw`, of w = 0, is nearly constant; `tangent_norm`, the mean
  Euclidean ||g||, is not; `log_weight` is the mean of a learned w.

  Args:
    model_fn: A velocity network, called with s = t_min; raw networks through
      `predictions`. A JVP needs its forward-mode derivative. Its embedding of t
      has a small one. Others: see `jaxflow.losses`.
    path: `Trigonometric(t_max=pi / 2, noise_std=standard deviation of data)`.
    sample_times: Times t are angles.
    teacher: Without one, the velocity of the pair takes its place.
    warmup: Share of training over which r of eq. (5) grows to 1.
    normalization: The norm of eq. (6) over a sample: "l2", or "rms", which is
      smaller by the root of the number of elements.
    c: Added to the norm, in its units.
    derivative: How J is computed; see `derivatives`.
    difference_step: Its step h, in units of t.
    log_weight: `t [B] -> w [B]` with parameters of its own; default: 0.
    progress: By default r = 1.

  Example:
    >>> path = paths.Trigonometric(t_max=math.pi / 2)
    >>> net = lambda xt, t, s, cond: expand(1 / jnp.tan(t), xt) * xt  # f = 0
    >>> loss, _ = continuous_consistency_loss(
    ...     net, jax.random.key(0), {"data": jnp.zeros((2, 4))}, path=path,
    ...     sample_times=times.Uniform(t_min=0.5, t_max=1.0))
    >>> loss.round(6).tolist()
    [0.0, 0.0]
  """
  if not math.isclose(path.t_max, math.pi / 2):
    raise ValueError(
      f"path {path}: the time must be an angle, use trigonometric with t_max "
      "pi / 2"
    )
  if normalization not in ("l2", "rms"):
    raise ValueError(f"normalization={normalization!r}: use l2 or rms")
  time_key, noise_key = jax.random.split(key)
  data, cond = batch["data"], batch.get("cond")
  noise = couplings.noise_of(batch, noise_key)
  t = times.draw(sample_times, time_key, data, of="times")
  t_min = jnp.full_like(t, path.t_min)
  xt = paths.interpolate(path, data, noise, t)
  if teacher is None:
    v = paths.velocity(path, data, noise, t)
  else:
    v = teacher(xt, t, t, cond)

  cos, sin = jnp.cos(t), jnp.sin(t)
  cos2, cos_sin = expand(cos * cos, xt), expand(cos * sin, xt)
  u, du = derivatives.along_flow(
    lambda xt, t: model_fn(xt, t, t_min, cond),
    *(xt, t, v),
    path=path,
    rate=cos * sin,
    derivative=derivative,
    step=difference_step,
  )
  constant = jax.lax.stop_gradient(u)
  r = jnp.asarray(warmup_ratio(progress, warmup), t.dtype)
  tangent = -cos2 * (constant - v) - r * (cos_sin * xt + du)
  tangent = jax.lax.stop_gradient(tangent)
  norm = jnp.sqrt(weights.sample_sum(tangent**2))
  rms = jnp.sqrt(weights.sample_mean(tangent**2))
  size = norm if normalization == "l2" else rms
  error = (u - constant) / path.noise_std - tangent / expand(size + c, xt)
  loss = weights.sample_mean(error**2)
  metrics = {"raw": loss.mean(), "tangent_norm": norm.mean()}
  if log_weight is not None:
    w = log_weight(t)
    loss = weights.learned(loss, w)
    metrics["log_weight"] = w.mean()
  return loss, metrics


def warmup_ratio(progress: Array | None, warmup: float) -> Array | float:
  """Return r of eq. (5): 1 without progress or without a warm-up."""
  if progress is None or warmup == 0:
    return 1.0
  return jnp.minimum(1.0, progress / warmup)
