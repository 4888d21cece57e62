"""The discriminator's side of adversarial training of a one-step generator.

A discriminator D returns logits, of one or several heads, for real data and for
the output of one jump G of the generator from a noisy point:

  xt = alpha(t) data + sigma(t) noise                                     (1)
  fake = sg G(xt, t, t_min)                                               (2)
  L_D = criterion(D(data), D(fake)), mean over the heads                  (3)

At t = t_max, (2) is the sample of a one-step generator.

References:
  Kim et al. 2023 (arXiv:2310.02279).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxflow import couplings, paths
from jaxflow.losses import adversarial
from jaxflow.paths import Path
from jaxflow.times import TimeSampler
from jaxflow.types import Array, Batch, FlowMap, LossOutput, PyTree


def discriminator_loss(
  discriminator: Callable[[Array, PyTree], Array],
  key: Array,
  batch: Batch,
  *,
  path: Path,
  sample_times: TimeSampler,
  generator: FlowMap,
  criterion: adversarial.Criterion = adversarial.hinge,
) -> LossOutput:
  """Compute the discriminator's loss of each sample, eq. (3).

  Args:
    discriminator: `(x, cond) -> logits`, `[B]` or `[B, heads]`.
    key: Random key for times and, if the batch has none, noise.
    batch: `data [B, ...]`, the real samples; optional `noise` and `cond`.
    path: The path between data and noise.
    sample_times: `(key, B) -> t [B]`, where the generator starts.
    generator: The generator's flow map; it gets no gradient.
    criterion: `adversarial.hinge` or `logistic`.

  Returns:
    The loss `[B]`, and metrics: `raw` (mean loss), `real` and `fake` (mean
    logits).

  Example:
    >>> from jaxflow import times
    >>> blind = lambda x, cond: 0 * x[:, 0]
    >>> jump = lambda xt, t, s, cond: xt
    >>> loss, _ = discriminator_loss(
    ...     blind, jax.random.key(0), {"data": jnp.ones((2, 3))},
    ...     path=paths.Linear(), sample_times=times.Uniform(), generator=jump)
    >>> loss.tolist()
    [2.0, 2.0]
  """
  time_key, noise_key = jax.random.split(key)
  data, cond = batch["data"], batch.get("cond")
  noise = couplings.noise_of(batch, noise_key)
  t = sample_times(time_key, data.shape[0])
  xt = paths.interpolate(path, data, noise, t)
  made = generator(xt, t, jnp.full_like(t, path.t_min), cond)

  real = discriminator(data, cond)
  fake = discriminator(jax.lax.stop_gradient(made), cond)
  loss = criterion.discriminator(real, fake)
  return loss, {"raw": loss.mean(), "real": real.mean(), "fake": fake.mean()}
