"""Guidance distillation: one forward of the student for two of the teacher.

The student takes the guidance scale w as a condition beside the label and
regresses the teacher's guided velocity,

  v_w = v_null + w (v_label - v_null),  w ~ p(w)                          (1)
  L = mean (F(xt, t, t, {label, w}) - sg v_w)^2                           (2)

so that sampling at any w of the law costs one forward a step.

References:
  Meng et al. 2022 (arXiv:2210.03142), eq. 5-7.
"""

from typing import Annotated

import jax

from jaxflow import couplings, guidance, paths, times, weights
from jaxflow.options import AtLeastOne, Finite, GuidesTeacher
from jaxflow.types import Array, Batch, LossOutput, ModelFn, PyTree, Teacher


def guidance_distillation_loss(
  model_fn: ModelFn,
  key: Array,
  batch: Batch,
  *,
  path: paths.Path,
  sample_times: times.TimeSampler,
  teacher: Teacher,
  null_cond: PyTree,
  omega_max: Annotated[AtLeastOne, GuidesTeacher(off=1)] = 4.0,
  omega_power: Finite = 0.0,
) -> LossOutput:
  """Compute the guidance distillation loss of each sample, eq. (2).

  Args:
    model_fn: The student; it is called with s = t and the condition of
      `guidance.inputs`, omega being w. Others: see `jaxflow.losses`.
    batch: `cond` is needed: labels, or a dict like the network's, whose omega
      then takes the place of the drawn w.
    teacher: Not guided, and trained on the null label too.
    omega_max: Largest w; the smallest is 1.
    omega_power: p(w) is `w^-power` (`guidance.scale_law`); 0 is uniform.

  Example:
    >>> import jax.numpy as jnp
    >>> teacher = lambda xt, t, s, cond: 1.0 * (cond < 5)[:, None] + 0 * xt
    >>> student = lambda xt, t, s, cond: cond["omega"][:, None] + 0 * xt
    >>> batch = {"data": jnp.zeros((2, 3)), "cond": jnp.array([0, 4])}
    >>> loss, _ = guidance_distillation_loss(
    ...     student, jax.random.key(0), batch, path=paths.Linear(),
    ...     sample_times=times.Uniform(), teacher=teacher, null_cond=5)
    >>> loss.tolist()
    [0.0, 0.0]
  """
  if batch.get("cond") is None:
    raise ValueError(
      "the batch has no 'cond': a guidance scale acts on labels; give labels"
    )
  time_key, scale_key, noise_key = jax.random.split(key, 3)
  data, cond = batch["data"], batch["cond"]
  noise = couplings.noise_of(batch, noise_key)
  t = times.draw(sample_times, time_key, data, of="times")
  xt = paths.interpolate(path, data, noise, t)
  label = guidance.labels(cond)
  if guidance.is_inputs(cond) and "omega" in cond:
    omega = cond["omega"]
  else:
    draws = times.uniform_draws(scale_key, len(t)).astype(t.dtype)
    omega = guidance.scale_law(draws, high=omega_max, power=omega_power)
    cond = guidance.inputs(label, t, omega=omega)

  guided = guidance.classifier_free(teacher, scale=omega, null_cond=null_cond)
  target = jax.lax.stop_gradient(guided(xt, t, t, label))
  raw = weights.l2(model_fn(xt, t, t, cond), target)
  return raw, {"raw": raw.mean()}
