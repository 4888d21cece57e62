"""Distillation of stored pairs into a one-step generator.

A pair is a noise and the data to which a teacher's ODE carries it. One jump of
the flow map from t_max to t_min is the generator,

  x^ = flow_map(sigma(t_max) noise, t_max, t_min)                         (1)
  L = w_r dist(x^, data) + w_p perceptual(x^, data) + w_a A(D(x^))        (2)

with A of `losses.adversarial` for a discriminator D that returns logits. With
the first term alone it is knowledge distillation, and the last step of
k-rectified flow; with the others, the distillation of InstaFlow. The first term
alone blurs (posterior mean), the last alone drops modes.

References:
  Luhman, Luhman 2021 (arXiv:2101.02388), eq. 7; Liu et al. 2022
  (arXiv:2209.03003), section 2.2; Liu et al. 2023 (arXiv:2309.06380), eq. 6.
"""

from collections.abc import Callable
from typing import Annotated

import jax.numpy as jnp

from jaxflow import couplings, paths, weights
from jaxflow.losses import adversarial
from jaxflow.options import Amount, Term
from jaxflow.types import (
  Array,
  Discriminator,
  FlowMap,
  LossOutput,
  ModelFn,
  Pairs,
)


def distillation_loss(
  model_fn: ModelFn,
  key: Array,
  batch: Pairs,
  *,
  path: paths.Path,
  flow_map: Callable[[ModelFn], FlowMap],
  distance: weights.Distance = weights.l2,
  perceptual: weights.Perceptual | None = None,
  discriminator: Discriminator | None = None,
  criterion: adversarial.Criterion = adversarial.logistic,
  reconstruction_weight: Amount = 1.0,
  perceptual_weight: Annotated[Amount, Term("perceptual")] = 0.0,
  adversarial_weight: Annotated[Amount, Term("discriminator")] = 0.0,
) -> LossOutput:
  """Compute the distillation loss of each sample, eq. (2).

  The metrics are means without weights: `raw` of the distance, `perceptual` and
  `adversarial` where these are used. The key is not used: a pair decides all.

  Args:
    batch: `data` with the `noise` it came from, which is needed.
    path: Its ends are the ends of the jump. Others: see `jaxflow.losses`.
    flow_map: `flow_maps.average_velocity` (one Euler step) or `edm_skip`.
    distance: `weights.l1` or `l2`.
    perceptual: A distance of features: `perceptual.feature_distance(features)`.
    reconstruction_weight: w_r of eq. (2).
    perceptual_weight: w_p of eq. (2); other than 0 it needs `perceptual`.
    adversarial_weight: w_a of eq. (2); other than 0 it needs `discriminator`.

  Example:
    >>> import jax
    >>> from jaxflow import flow_maps
    >>> net = lambda xt, t, s, cond: xt                   # x^ = 0
    >>> batch = {"data": jnp.full((2, 4), 2.0), "noise": jnp.ones((2, 4))}
    >>> loss, _ = distillation_loss(
    ...     net, jax.random.key(0), batch, path=paths.Linear(),
    ...     flow_map=flow_maps.average_velocity)
    >>> loss.tolist()
    [4.0, 4.0]
  """
  del key
  couplings.check_pairs(batch)
  data, noise, cond = batch["data"], batch["noise"], batch.get("cond")
  t = jnp.broadcast_to(paths.as_times(path.t_max, data), data.shape[:1])
  s = jnp.full_like(t, path.t_min)
  sample = flow_map(model_fn)(paths.start(path, noise), t, s, cond)

  raw = distance(sample, data)
  loss = reconstruction_weight * raw
  metrics = {"raw": raw.mean()}
  if perceptual_weight:
    term = _given("perceptual", perceptual)(sample, data)
    loss = loss + perceptual_weight * term
    metrics["perceptual"] = term.mean()
  if adversarial_weight:
    judge = _given("discriminator", discriminator)
    term = adversarial.generator_term(
      criterion, lambda x: judge(x, cond), sample, data
    )
    loss = loss + adversarial_weight * term
    metrics["adversarial"] = term.mean()
  return loss, metrics


def _given(name: str, function: Callable | None) -> Callable:
  if function is None:
    raise ValueError(f"{name}=None but its weight is not 0: give the function")
  return function
