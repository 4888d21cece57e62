"""Adversarial losses of a discriminator and a generator, from logits.

With the logits l of real and of generated samples, larger for real,

  logistic   L_D = softplus(-l_real) + softplus(l_fake)                   (1)
             L_G = softplus(-l_fake) = -ln sigmoid(l_fake)                (2)
  hinge      L_D = relu(1 - l_real) + relu(1 + l_fake)                    (3)
             L_G = -l_fake                                                (4)

Logits are `[B]`, or `[B, heads]` for a discriminator with several heads, whose
losses are averaged. Softplus, because the ln of a sigmoid underflows.

References:
  Goodfellow et al. 2014 (arXiv:1406.2661), section 3 for the non-saturating
  (2); Lim, Ye 2017 (arXiv:1705.02894), eq. 3-4 for the hinge.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from jaxflow import weights
from jaxflow.types import Array


class Criterion(NamedTuple):
  """The two sides of adversarial training, as losses `[B]` of logits.

  Attributes:
    discriminator: `(real, fake) -> [B]`. The caller stops the gradient where
      generated samples enter the discriminator.
    generator: `fake -> [B]`.

  Example:
    >>> import jax.numpy as jnp
    >>> real, fake = jnp.array([[2.0]]), jnp.array([[0.5]])
    >>> hinge.discriminator(real, fake).tolist(), hinge.generator(fake).tolist()
    ([1.5], [-0.5])
    >>> round(float(logistic.generator(jnp.zeros(1))[0]), 4)          # ln 2
    0.6931
  """

  discriminator: Callable[[Array, Array], Array]
  generator: Callable[[Array], Array]


def _logistic_discriminator(real: Array, fake: Array) -> Array:
  """Compute eq. (1)."""
  return weights.sample_mean(jax.nn.softplus(-real) + jax.nn.softplus(fake))


def _logistic_generator(fake: Array) -> Array:
  """Compute eq. (2)."""
  return weights.sample_mean(jax.nn.softplus(-fake))


def _hinge_discriminator(real: Array, fake: Array) -> Array:
  """Compute eq. (3)."""
  return weights.sample_mean(jax.nn.relu(1 - real) + jax.nn.relu(1 + fake))


def _hinge_generator(fake: Array) -> Array:
  """Compute eq. (4)."""
  return weights.sample_mean(-fake)


logistic: Criterion = Criterion(_logistic_discriminator, _logistic_generator)
hinge: Criterion = Criterion(_hinge_discriminator, _hinge_generator)
