"""Progressive distillation: one student step for two teacher steps.

With D the denoisers of student and teacher and DDIM the deterministic step that
is exact for a constant denoiser (`flow_maps.ddim_step`),

  xm = DDIM(teacher; xt, t -> m),  xs = DDIM(teacher; xm, m -> s)         (1)
  target = (xs - r xt) / (alpha_s - r alpha_t),   r = sigma_s / sigma_t   (2)
  L = w(t) mean (D(xt, t) - sg target)^2                                  (3)

(2) is the denoiser whose single step from t to s ends in xs; where sigma_s = 0
and alpha_s = 1 it is xs itself. Training halves the number of steps; the
student is then the teacher of the next round.

References:
  Salimans, Ho 2022 (arXiv:2202.00512), algorithm 2 and appendix G.
"""

from typing import Annotated

import jax

from jaxflow import (
  couplings,
  flow_maps,
  guidance,
  paths,
  predictions,
  times,
  weights,
)
from jaxflow.options import DataScale, LabelDropout, Predicts
from jaxflow.paths import Path, expand
from jaxflow.types import Array, Batch, LossOutput, ModelFn, PyTree, Teacher


def progressive_distillation_loss(
  model_fn: ModelFn,
  key: Array,
  batch: Batch,
  *,
  path: Path,
  sample_times: times.TripleSampler,
  teacher: Teacher,
  prediction: Annotated[predictions.Parameterization, Predicts()] = "velocity",
  sigma_data: DataScale = 0.5,
  weight: weights.Weight = weights.truncated_snr,
  label_dropout: LabelDropout = 0.0,
  null_cond: PyTree = None,
) -> LossOutput:
  """Compute the progressive distillation loss of each sample, eq. (3).

  Args:
    model_fn: The student, called with s = t. Others: see `jaxflow.losses`.
    sample_times: `(key, B) -> (t, m, s)`, each `[B]`, t > m > s: the ends and
      the middle of a student step (`times.AdjacentTriple`).
    prediction: What the student is; not "noise" where alpha(t_max) = 0.
    weight: `inverse_square` on the linear path makes (3) a loss of velocities.

  Example:
    >>> import jax.numpy as jnp
    >>> net = lambda xt, t, s, cond: jnp.ones_like(xt)    # straight paths
    >>> triple = times.AdjacentTriple(grid=times.uniform_grid, num_steps=2)
    >>> loss, _ = progressive_distillation_loss(
    ...     net, jax.random.key(0), {"data": jnp.zeros((2, 4))},
    ...     path=paths.Linear(), teacher=net, sample_times=triple)
    >>> bool((loss < 1e-10).all())
    True
  """
  time_key, noise_key, label_key = jax.random.split(key, 3)
  data = batch["data"]
  noise = couplings.noise_of(batch, noise_key)
  cond = guidance.drop_labels(
    label_key, batch.get("cond"), rate=label_dropout, null_cond=null_cond
  )
  t, m, s = times.draw(sample_times, time_key, data, of="triples")
  xt = paths.interpolate(path, data, noise, t)

  step = flow_maps.ddim_step(teacher, path=path)
  xs = step(step(xt, t, m, cond), m, s, cond)
  ratio = path.sigma(s) / path.sigma(t)
  scale = path.alpha(s) - ratio * path.alpha(t)
  target = (xs - expand(ratio, xt) * xt) / expand(scale, xt)

  denoiser = predictions.as_prediction(
    model_fn, path, source=prediction, target="data", sigma_data=sigma_data
  )
  raw = weights.l2(denoiser(xt, t, t, cond), jax.lax.stop_gradient(target))
  return weight(path, t, s) * raw, {"raw": raw.mean()}
