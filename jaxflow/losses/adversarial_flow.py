"""Adversarial flow: a discriminator and optimal transport teach the jumps.

A jump G of the flow map goes from a point xt to one at a time s, where real
points have noise of their own:

  xt = alpha(t) data + sigma(t) noise,  fake = G(xt, t, s)                (1)
  real = alpha(s) data + sigma(s) noise'                                  (2)

A discriminator D of both, of their labels and of s, says how real they look. As
any map of xt with the right law at s would do for it alone, a second term picks
one: that of the least squared distance, the optimal transport. Per element,
with the gap r = max(|t - s|, 0.001) and A of `losses.adversarial`,

  L = w_a A(D(fake, s), D(real, s)) + w_o mean (fake - xt)^2 / r          (3)

The published A is relativistic, softplus(D(real, s) - D(fake, s)). The second
term decays with the share p of training that is done, so that the law is right
in the end:

  w_o = e + (w - e) (1 + cos(pi p)) / 2                                   (4)

No velocity, teacher, trajectory or target network is used. D learns beside G by
`losses.discriminator_loss` with pairs of times.

References:
  Lin et al. 2025 (arXiv:2511.22475).
"""

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp

from jaxflow import couplings, paths, times, weights
from jaxflow.losses import adversarial
from jaxflow.options import Amount, Term
from jaxflow.types import (
  Array,
  Batch,
  FlowMap,
  LossOutput,
  ModelFn,
  TimedDiscriminator,
)


def adversarial_flow_loss(
  model_fn: ModelFn,
  key: Array,
  batch: Batch,
  *,
  path: paths.Path,
  sample_times: times.PairSampler,
  flow_map: Callable[[ModelFn], FlowMap],
  progress: Array | None = None,
  discriminator: TimedDiscriminator | None = None,
  criterion: adversarial.Criterion = adversarial.relativistic,
  adversarial_weight: Annotated[Amount, Term("discriminator")] = 1.0,
  transport_weight: Amount = 0.2,
  transport_end: Amount = 0.005,
) -> LossOutput:
  """Compute the adversarial flow loss of each sample, eq. (3).

  The metrics are means without weights: `raw` of the transport term, and
  `adversarial` where that is used.

  Args:
    batch: Optional `noise_end`, the noise' of eq. (2).
    flow_map: `flow_maps.average_velocity`, or `free` for a network that
      predicts the point at s. Others: see `jaxflow.losses`.
    progress: p of eq. (4); None is 0.
    discriminator: `(x, cond, s) -> logits`, [B] or [B, heads]; its parameters
      are constants here.
    adversarial_weight: w_a of eq. (3); other than 0 it needs `discriminator`.
    transport_weight: w of eq. (4), w_o at the start of training.
    transport_end: e of eq. (4), w_o at its end.

  Raises:
    ValueError: If there is no discriminator for its weight.

  Example:
    >>> from jaxflow import flow_maps
    >>> net = lambda xt, t, s, cond: 0 * xt                # fake = xt
    >>> blind = lambda x, cond, s: 0 * x[:, 0]
    >>> loss, _ = adversarial_flow_loss(
    ...     net, jax.random.key(0), {"data": jnp.ones((2, 4))},
    ...     path=paths.Linear(), flow_map=flow_maps.average_velocity,
    ...     sample_times=times.SortedPair(law=times.Uniform()),
    ...     discriminator=blind)
    >>> [round(x, 4) for x in loss.tolist()]               # ln 2
    [0.6931, 0.6931]
  """
  time_key, noise_key, end_key = jax.random.split(key, 3)
  data, cond = batch["data"], batch.get("cond")
  noise = couplings.noise_of(batch, noise_key)
  t, s = times.draw(sample_times, time_key, data, of="pairs")
  xt = paths.interpolate(path, data, noise, t)
  fake = flow_map(model_fn)(xt, t, s, cond)

  gap = jnp.maximum(jnp.abs(t - s), adversarial.LEAST_GAP)
  raw = weights.l2(fake, xt) / gap
  weight = transport_weight
  if progress is not None:
    fall = (1 + jnp.cos(jnp.pi * progress)) / 2
    weight = transport_end + (transport_weight - transport_end) * fall
    weight = weight.astype(raw.dtype)
  loss = weight * raw
  metrics = {"raw": raw.mean()}
  if adversarial_weight:
    if (judge := discriminator) is None:
      raise ValueError(
        f"discriminator=None with adversarial_weight={adversarial_weight}: "
        "give the function, or set the weight to 0"
      )
    real = adversarial.at_end(path, data, s, batch, end_key)
    term = adversarial.generator_term(
      criterion, lambda x: judge(x, cond, s), fake, real
    )
    loss = loss + adversarial_weight * term
    metrics["adversarial"] = term.mean()
  return loss, metrics
