"""MeanFlow as its published code computes it, to stand beside ours."""

import jax
import jax.numpy as jnp

from jaxflow import guidance, paths, times, weights
from jaxflow.types import Array, Batch, LossOutput, ModelFn

LINEAR = paths.Linear()
PAIRS = times.SortedPair(law=times.LogitNormal(mean=-0.4, std=1.0))
LABEL_DROPOUT = 0.1


def published_mean_flow(
  model_fn: ModelFn,
  key: Array,
  batch: Batch,
  *,
  num_classes: int,
  omega: float = 1.0,
  kappa: float = 0.0,
  stop_tangent: bool = True,
) -> LossOutput:
  """Compute MeanFlow as its published code does: every row pays for all.

  The first three quarters of the batch train at s = t.

  Args:
    model_fn: The network.
    key: Random key.
    batch: `data` and `cond`.
    num_classes: The null label.
    omega: Guidance weight of the sample's velocity.
    kappa: Guidance weight of the network's conditional velocity.
    stop_tangent: Whether du/dt is a constant of the target.

  Returns:
    The loss `[B]`, and no metrics.
  """
  time_key, noise_key, label_key = jax.random.split(key, 3)
  data = batch["data"]
  size = data.shape[0]
  noise = jax.random.normal(noise_key, data.shape)
  t, s = PAIRS(time_key, size)
  s = jnp.where(jnp.arange(size) < 3 * size // 4, t, s)
  xt = paths.interpolate(LINEAR, data, noise, t)
  v = v_g = paths.velocity(LINEAR, data, noise, t)
  cond = guidance.drop_labels(
    label_key, batch["cond"], rate=LABEL_DROPOUT, null_cond=num_classes
  )
  if (omega, kappa) != (1.0, 0.0):
    null = model_fn(xt, t, t, guidance.null(cond, num_classes))
    v_g = omega * v + (1 - omega - kappa) * null
    if kappa:
      v_g = v_g + kappa * model_fn(xt, t, t, cond)
    v_g = jnp.where(paths.expand(cond != num_classes, v), v_g, v)
  v_g = jax.lax.stop_gradient(v_g)
  u, du = jax.jvp(
    lambda xt, t, s: model_fn(xt, t, s, cond),
    (xt, t, s),
    (v_g, jnp.ones_like(t), jnp.zeros_like(s)),
  )
  if stop_tangent:
    du = jax.lax.stop_gradient(du)
  error = weights.l2_sum(u, v_g - paths.expand(t - s, du) * du)
  return weights.adaptive(error, power=1.0, eps=0.01), {}
