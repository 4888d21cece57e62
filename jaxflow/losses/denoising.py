"""Denoising with a preconditioned network: the loss of EDM.

On the variance-exploding path a raw network F is wrapped as a denoiser D whose
inputs and targets have unit variance at every noise level,

  xt = data + t noise                                                     (1)
  D(xt, t) = c_skip xt + c_out F(c_in xt, ln(t) / 4)                      (2)
  L = (t^2 + sd^2) / (t sd)^2 dist(D(xt, t), data)                        (3)

with the coefficients of `predictions.edm_denoiser`. The minimiser of (3) is
E[data | xt], and dx/dt = (x - D) / t carries noise to data. The published
distance is the sum over elements; with the mean, gradients are smaller by the
number of elements, which Adam's eps and clipping notice.

References:
  Karras et al. 2022 (arXiv:2206.00364), eq. 2, 3, 8 and table 1.
"""

from typing import Annotated

import jax

from jaxflow import couplings, guidance, paths, predictions, times, weights
from jaxflow.options import DataScale, LabelDropout, Predicts
from jaxflow.types import Array, Batch, LossOutput, ModelFn, PyTree


def denoising_loss(
  model_fn: ModelFn,
  key: Array,
  batch: Batch,
  *,
  path: paths.Path,
  sample_times: times.TimeSampler,
  prediction: Annotated[predictions.Parameterization, Predicts()] = "edm",
  sigma_data: DataScale = 0.5,
  distance: weights.Distance = weights.l2_sum,
  label_dropout: LabelDropout = 0.0,
  null_cond: PyTree = None,
) -> LossOutput:
  """Compute the denoising loss of each sample, eq. (3).

  Args:
    model_fn: Called with s = t. Others: see `jaxflow.losses`.
    path: The variance-exploding path, where t > 0 is the noise level.
    prediction: "edm" for the raw network of eq. (2), or a prediction, "data"
      for a network that denoises by itself.
    distance: `weights.l2_sum`, or `weights.l2` for the mean.

  Example:
    >>> import jax.numpy as jnp
    >>> net = lambda xt, t, s, cond: 0 * xt
    >>> batch = {"data": jnp.ones((2, 4)), "noise": jnp.zeros((2, 4))}
    >>> loss, _ = denoising_loss(
    ...     net, jax.random.key(0), batch, path=paths.VarianceExploding(),
    ...     sample_times=times.Constant(t=0.5))
    >>> loss.tolist()
    [8.0, 8.0]
  """
  if not isinstance(path, paths.VarianceExploding):
    raise ValueError(
      f"path {type(path).__name__}: the denoising loss weighs noise levels; "
      "give VarianceExploding, or use flow matching with a data prediction"
    )
  time_key, noise_key, label_key = jax.random.split(key, 3)
  data = batch["data"]
  noise = couplings.noise_of(batch, noise_key)
  cond = guidance.drop_labels(
    label_key, batch.get("cond"), rate=label_dropout, null_cond=null_cond
  )
  t = times.draw(sample_times, time_key, data, of="times")
  xt = paths.interpolate(path, data, noise, t)
  denoiser = predictions.as_prediction(
    model_fn, path, source=prediction, target="data", sigma_data=sigma_data
  )
  raw = distance(denoiser(xt, t, t, cond), data)
  weight = weights.karras(sigma_data)(path, t, t)
  return weight * raw, {"raw": raw.mean()}
