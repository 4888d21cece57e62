"""The exact velocity of a known mixture, on any path: no network, no training.

With `xt = alpha data + sigma noise` and data from sum_k w_k N(m_k, c_k^2 I),
the point at t comes from mode k with the probability

  r_k proportional to w_k V_k^(-D/2) exp(-|xt - alpha m_k|^2 / (2 V_k))    (1)
  V_k = alpha^2 c_k^2 + sigma^2                                           (2)

and given the mode everything is Gaussian, so the means of both ends are

  E[data | xt] = sum_k r_k (m_k + alpha c_k^2 (xt - alpha m_k) / V_k)     (3)
  E[noise | xt] = sum_k r_k sigma (xt - alpha m_k) / V_k                  (4)

The velocity alpha' E[data | xt] + sigma' E[noise | xt] divides by no time.
"""

import jax
import jax.numpy as jnp

from jaxflow import paths
from jaxflow.metrics import Mixture
from jaxflow.paths import Path
from jaxflow.types import Array, ModelFn


def exact_velocity(mixture: Mixture, path: Path) -> ModelFn:
  """Return the velocity of the mixture's probability-flow ODE.

  Args:
    mixture: The law of the data.
    path: The path.

  Returns:
    A function with the signature of a network, `(xt, t, s, cond)`; a pytree
    without arrays.
  """

  def velocity(xt, t, s, cond):
    del s, cond
    return paths.velocity(path, *posterior_means(mixture, path, xt, t), t)

  return jax.tree_util.Partial(velocity)


def posterior_means(
  mixture: Mixture, path: Path, xt: Array, t: Array
) -> tuple[Array, Array]:
  """Return the means of data and noise given points, eq. (3) and (4).

  Args:
    mixture: The law of the data.
    path: The path.
    xt: Points [B, D].
    t: Their times [B].
  """
  weights, means, stds = (
    jnp.asarray(x, xt.dtype)
    for x in (mixture.weights, mixture.means, mixture.stds)
  )
  alpha, sigma = path.alpha(t), path.sigma(t)
  away = xt[:, None] - alpha[:, None, None] * means[None]
  variance = (alpha[:, None] * stds[None]) ** 2 + sigma[:, None] ** 2
  logits = (
    jnp.log(weights)[None]
    - xt.shape[1] / 2 * jnp.log(variance)
    - jnp.sum(away**2, axis=2) / (2 * variance)
  )
  share = jax.nn.softmax(logits, axis=1)
  # r_k / V_k, of which both means are made.
  pull = (share / variance)[:, :, None] * away
  gain = alpha[:, None, None] * stds[None, :, None] ** 2
  data = jnp.sum(share[:, :, None] * means[None] + gain * pull, axis=1)
  return data, sigma[:, None] * jnp.sum(pull, axis=1)
