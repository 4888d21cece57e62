"""Adversarial training: criteria of logits, and the discriminator's loss.

With the logits l of real and of generated samples, larger for real,

  logistic   L_D = softplus(-l_real) + softplus(l_fake)                   (1)
             L_G = softplus(-l_fake) = -ln sigmoid(l_fake)                (2)
  hinge      L_D = relu(1 - l_real) + relu(1 + l_fake)                    (3)
             L_G = -l_fake                                                (4)

Logits are `[B]`, or `[B, heads]` for a discriminator with several heads, whose
losses are averaged. Softplus, because the ln of a sigmoid underflows.

The discriminator D sees data, and the output of one jump G of the generator
from a noisy point; at t = t_max this is the sample of a one-step generator:

  xt = alpha(t) data + sigma(t) noise                                     (5)
  fake = sg G(xt, t, t_min)                                               (6)
  L_D = criterion(D(data), D(fake))                                       (7)

References:
  Goodfellow et al. 2014 (arXiv:1406.2661), section 3 for the non-saturating
  (2); Lim, Ye 2017 (arXiv:1705.02894), eq. 3-4 for the hinge; Kim et al. 2023
  (arXiv:2310.02279) for (7).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import relu, softplus

from jaxflow import couplings, paths, times
from jaxflow.types import Array, Batch, FlowMap, LossOutput, PyTree
from jaxflow.weights import sample_mean


class Criterion(NamedTuple):
  """The two sides of adversarial training, as losses `[B]` of logits.

  The first is a function of `(real, fake)`; its caller stops the gradient where
  generated samples enter the discriminator. The second is a function of `fake`.

  Example:
    >>> real, fake = jnp.array([[2.0]]), jnp.array([[0.5]])
    >>> hinge.discriminator(real, fake).tolist(), hinge.generator(fake).tolist()
    ([1.5], [-0.5])
  """

  discriminator: Callable[[Array, Array], Array]
  generator: Callable[[Array], Array]


logistic: Criterion = Criterion(
  lambda real, fake: sample_mean(softplus(-real) + softplus(fake)),
  lambda fake: sample_mean(softplus(-fake)),
)
hinge: Criterion = Criterion(
  lambda real, fake: sample_mean(relu(1 - real) + relu(1 + fake)),
  lambda fake: sample_mean(-fake),
)


def discriminator_loss(
  discriminator: Callable[[Array, PyTree], Array],
  key: Array,
  batch: Batch,
  *,
  path: paths.Path,
  sample_times: times.TimeSampler,
  generator: FlowMap,
  criterion: Criterion = hinge,
) -> LossOutput:
  """Compute the discriminator's loss of each sample, eq. (7).

  It has the arguments of every loss (`jaxflow.losses`), and the generator's
  flow map, which gets no gradient. The batch's data are the real samples. The
  metrics `real_logit` and `fake_logit` are means.

  Example:
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
  t = times.draw(sample_times, time_key, data)
  xt = paths.interpolate(path, data, noise, t)
  made = generator(xt, t, jnp.full_like(t, path.t_min), cond)

  real = discriminator(data, cond)
  fake = discriminator(jax.lax.stop_gradient(made), cond)
  loss = criterion.discriminator(real, fake)
  logits = {"real_logit": real.mean(), "fake_logit": fake.mean()}
  return loss, {"raw": loss.mean()} | logits
