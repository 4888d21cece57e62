"""Flow matching and rectified flow.

A network regresses a prediction P of the pair (data, noise) from the point
between them,

  xt = alpha(t) data + sigma(t) noise                                     (1)
  target = a_P data + b_P noise                                           (2)
  L = w(t) mean (F(xt, t, t) - target)^2                                  (3)

over the elements of a sample, or their sum. The minimiser is E[target | xt]:
for P = velocity, the velocity of the ODE that carries noise to data. Score
errors are scaled by sigma, so that (3) is finite near data. ReFlow is this loss
on batches that carry their `noise`.

References:
  Lipman et al. 2022 (arXiv:2210.02747), eq. 9; Liu et al. 2022
  (arXiv:2209.03003), eq. 1; Ma et al. 2024, SiT (arXiv:2401.08740), eq. 6-7.
"""

from typing import Annotated, get_args

import jax
import jax.numpy as jnp

from jaxflow import couplings, guidance, paths, predictions, times, weights
from jaxflow.options import LabelDropout, Predicts
from jaxflow.paths import Path, expand
from jaxflow.predictions import Prediction
from jaxflow.types import Array, Batch, LossOutput, ModelFn, PyTree


def flow_matching_loss(
  model_fn: ModelFn,
  key: Array,
  batch: Batch,
  *,
  path: Path,
  sample_times: times.TimeSampler,
  prediction: Annotated[Prediction, Predicts()] = "velocity",
  loss_space: Prediction | None = None,
  reduction: weights.Reduction = "mean",
  weight: weights.Weight = weights.uniform,
  label_dropout: LabelDropout = 0.0,
  null_cond: PyTree = None,
  coupling: couplings.Coupling | couplings.Annealed | None = None,
  progress: Array | None = None,
) -> LossOutput:
  """Compute the flow matching loss of each sample, eq. (3).

  Args:
    model_fn: Called with s = t. Others: see `jaxflow.losses`.
    loss_space: Where errors are taken; default: `prediction`. The singular
      times of a conversion (see `predictions`) must not be sampled.
    reduction: Of the squared errors of a sample: "mean" or "sum", with which
      gradients are larger by the number of elements.
    coupling: `(batch, key) -> noise [B, ...]`; default: the batch's own noise,
      or independent noise. One that changes during training needs `progress`.

  Example:
    >>> import jax.numpy as jnp
    >>> net = lambda xt, t, s, cond: 0 * xt
    >>> batch = {"data": jnp.zeros((2, 4)), "noise": jnp.ones((2, 4))}
    >>> loss, _ = flow_matching_loss(
    ...     net, jax.random.key(0), batch, path=paths.Linear(),
    ...     sample_times=times.Uniform())
    >>> loss.tolist()
    [1.0, 1.0]
  """
  space = loss_space or prediction
  if space not in get_args(Prediction):
    name = "loss_space" if loss_space else "prediction"
    known = ", ".join(get_args(Prediction))
    raise ValueError(f"{name}={space!r}: give one of {known}")
  distance = weights.squares(reduction)
  time_key, noise_key, label_key = jax.random.split(key, 3)
  data = batch["data"]
  noise = times.at(coupling or couplings.noise_of, progress)(batch, noise_key)
  cond = guidance.drop_labels(
    label_key, batch.get("cond"), rate=label_dropout, null_cond=null_cond
  )
  t = times.draw(sample_times, time_key, data, of="times")
  xt = paths.interpolate(path, data, noise, t)

  value = predictions.convert(
    path, model_fn(xt, t, t, cond), xt, t, source=prediction, target=space
  )
  a, b = predictions.row(path, t, space)
  error = value - (expand(a, data) * data + expand(b, data) * noise)
  if space == "score":
    error = expand(path.sigma(t), error) * error
  raw = distance(error, jnp.zeros_like(error))
  return weight(path, t, t) * raw, {"raw": raw.mean()}
