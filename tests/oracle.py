"""Closed forms for data of a known law: what an exact network predicts.

Points are `[B, D]`, times `[B]`. Predictions have the signature of a network,
`(x, t, s, cond)`, and ignore what they do not need.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxflow.paths import Path


def column(x):
  """`[B] -> [B, 1]`."""
  return x[:, None]


def derivative(function, t):
  """Return the derivative of a function of time, `[B]`."""
  return jax.jvp(function, (t,), (jnp.ones_like(t),))[1]


@dataclasses.dataclass(frozen=True, eq=False)
class Gaussian:
  """Data ~ N(mean, std^2 I), mean `[D]`."""

  path: Path
  mean: Any
  std: float

  def spread(self, t):
    """Return the standard deviation of x at t, `[B]`."""
    return jnp.sqrt(
      (self.path.alpha(t) * self.std) ** 2 + self.path.sigma(t) ** 2
    )

  def centre(self, t):
    """Return the mean of x at t, `[B, D]`."""
    return column(self.path.alpha(t)) * jnp.asarray(self.mean, t.dtype)[None]

  def score(self, x, t, s=None, cond=None):
    """Return the gradient of the log density of x at t."""
    return -(x - self.centre(t)) / column(self.spread(t)) ** 2

  def data(self, x, t, s=None, cond=None):
    """E[data given x]."""
    gain = column(self.path.alpha(t)) * self.std**2
    return jnp.asarray(self.mean, x.dtype)[None] - gain * self.score(x, t)

  def noise(self, x, t, s=None, cond=None):
    """E[noise given x]."""
    return -column(self.path.sigma(t)) * self.score(x, t)

  def velocity(self, x, t, s=None, cond=None):
    """E[velocity given x]."""
    d_alpha = column(derivative(self.path.alpha, t))
    d_sigma = column(derivative(self.path.sigma, t))
    return d_alpha * self.data(x, t) + d_sigma * self.noise(x, t)

  def flow_map(self, x, t, s, cond=None):
    """Return the point at s of the trajectory through x at t."""
    ratio = column(self.spread(s) / self.spread(t))
    return self.centre(s) + ratio * (x - self.centre(t))

  def average_velocity(self, x, t, s, cond=None):
    """(x - flow map) / (t - s), and its first-order expansion where t = s."""
    here = t == s
    gap = t - s
    # The guarded quotient keeps 0/0 out of the value and out of the derivative.
    quotient = (x - self.flow_map(x, t, s)) / column(jnp.where(here, 1, gap))
    v = self.velocity(x, t)
    one = jnp.ones_like(t)
    _, acceleration = jax.jvp(self.velocity, (x, t), (v, one))
    return jnp.where(column(here), v - column(gap) / 2 * acceleration, quotient)

  def irreducible_velocity(self, t):
    """Least possible velocity loss per element, `[B]`."""
    alpha, sigma = self.path.alpha(t), self.path.sigma(t)
    d_alpha = derivative(self.path.alpha, t)
    d_sigma = derivative(self.path.sigma, t)
    wronskian = d_alpha * sigma - alpha * d_sigma
    return (self.std * wronskian / self.spread(t)) ** 2

  def irreducible_data(self, t):
    """Least possible data loss per element, `[B]`."""
    return (self.std * self.path.sigma(t) / self.spread(t)) ** 2


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
  """Data ~ sum_k weights[k] N(means[k], stds[k]^2 I), means `[K, D]`."""

  path: Path
  weights: Any
  means: Any
  stds: Any

  def parts(self, x, t):
    """Posterior weights `[B, K]`, variances `[B, K]`, x - means `[B, K, D]`."""
    alpha, sigma = self.path.alpha(t), self.path.sigma(t)
    means = jnp.asarray(self.means, x.dtype)
    stds = jnp.asarray(self.stds, x.dtype)
    away = x[:, None] - alpha[:, None, None] * means[None]
    variance = (column(alpha) * stds[None]) ** 2 + column(sigma) ** 2
    logits = (
      jnp.log(jnp.asarray(self.weights, x.dtype))[None]
      - x.shape[1] / 2 * jnp.log(variance)
      - (away**2).sum(2) / (2 * variance)
    )
    return jax.nn.softmax(logits, axis=1), variance, away

  def score(self, x, t, s=None, cond=None):
    """Return the gradient of the log density of x at t."""
    posterior, variance, away = self.parts(x, t)
    return -((posterior / variance)[:, :, None] * away).sum(1)

  def data(self, x, t, s=None, cond=None):
    """E[data given x]."""
    posterior, variance, away = self.parts(x, t)
    gain = (
      column(self.path.alpha(t)) * jnp.asarray(self.stds, x.dtype)[None] ** 2
    )
    means = jnp.asarray(self.means, x.dtype)
    part = means[None] + (gain / variance)[:, :, None] * away
    return (posterior[:, :, None] * part).sum(1)

  def noise(self, x, t, s=None, cond=None):
    """E[noise given x]."""
    return -column(self.path.sigma(t)) * self.score(x, t)

  def velocity(self, x, t, s=None, cond=None):
    """E[velocity given x]."""
    d_alpha = column(derivative(self.path.alpha, t))
    d_sigma = column(derivative(self.path.sigma, t))
    return d_alpha * self.data(x, t) + d_sigma * self.noise(x, t)
