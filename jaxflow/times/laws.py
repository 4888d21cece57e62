"""Laws of training times t: maps of uniform or normal draws.

References:
  Esser et al. 2024 (arXiv:2403.03206), section 3.1: logit-normal times; Karras
  et al. 2022 (arXiv:2206.00364), eq. 5 and table 1.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow import rows
from jaxflow.options import Amount, Count, End, Finite, Positive, PositiveShare
from jaxflow.paths import standard_normal
from jaxflow.types import Array

# Entries of a table of probabilities.
_TABLE = 4097

TimeSampler = Callable[[Array, int], Array]


def uniform_draws(key: Array, *shape: int) -> Array:
  """Draw numbers in [0, 1), of float32: they are the same ones under x64.

  Example:
    >>> uniform_draws(jax.random.key(0), 2).shape
    (2,)
  """
  return jax.random.uniform(key, shape, jnp.float32).astype(float)


class Law(Protocol):
  """A distribution of times: `transform` of draws, uniform by default."""

  def draw(self, key: Array, n: int) -> Array:
    """Draw what `transform` maps, `[n]`."""
    return uniform_draws(key, n)

  def transform(self, draws: Array) -> Array:
    """Map draws `[...]` to times `[...]`."""
    ...

  def __call__(self, key: Array, n: int) -> Array:
    """Sample n times `[n]`."""
    return self.transform(self.draw(key, n))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uniform(Law):
  """t uniform on `[t_min, t_max]`.

  Example:
    >>> Uniform(t_max=2.0).transform(jnp.array([0.5])).tolist()
    [1.0]
  """

  t_min: Amount = 0.0
  t_max: End = 1.0

  def transform(self, draws: Array) -> Array:
    """Scale draws to `[t_min, t_max]`."""
    return self.t_min + (self.t_max - self.t_min) * draws

  def cdf(self, t: Array) -> Array:
    """Return the probability of a time below `t [...]`."""
    return jnp.clip((t - self.t_min) / (self.t_max - self.t_min), 0, 1)

  def quantile(self, p: Array) -> Array:
    """Return the time below which the probability is `p [...]`."""
    return self.transform(p)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniformSteps(Law):
  """t uniform on the times from which equal steps to `t_min` start.

  Example:
    >>> UniformSteps(num_steps=2).transform(jnp.array([0.2, 0.7])).tolist()
    [1.0, 0.5]
  """

  num_steps: Count = 1
  t_min: Amount = 0.0
  t_max: End = 1.0

  def transform(self, draws: Array) -> Array:
    """Return `t_max - j (t_max - t_min) / num_steps`, j from 0."""
    j = jnp.minimum(jnp.floor(self.num_steps * draws), self.num_steps - 1)
    return self.t_max - j * (self.t_max - self.t_min) / self.num_steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Normal(Law):
  """A law that maps standard normal draws, with `mean` and `std` before it."""

  mean: Finite = 0.0
  std: Positive = 1.0

  def draw(self, key: Array, n: int) -> Array:
    """Draw standard normal numbers `[n]`."""
    return standard_normal(key, (n,), jnp.float32).astype(float)


class LogitNormal(_Normal):
  """`t = sigmoid(mean + std N(0, 1))`, in (0, 1).

  Example:
    >>> LogitNormal().transform(jnp.array([0.0])).tolist()
    [0.5]
  """

  def transform(self, draws: Array) -> Array:
    """Return the sigmoid of the shifted and scaled draws."""
    return jax.nn.sigmoid(self.mean + self.std * draws)

  def cdf(self, t: Array) -> Array:
    """Return the probability of a time below `t [...]`."""
    logit = jnp.log(t) - jnp.log1p(-t)
    return jax.scipy.special.ndtr((logit - self.mean) / self.std)

  def quantile(self, p: Array) -> Array:
    """Return the time below which the probability is `p [...]`."""
    return self.transform(jax.scipy.special.ndtri(p))


class LogNormal(_Normal):
  """`ln t = mean + std N(0, 1)`: the noise levels of EDM.

  Example:
    >>> LogNormal().transform(jnp.array([0.0])).tolist()
    [1.0]
  """

  def transform(self, draws: Array) -> Array:
    """Return the exponential of the shifted and scaled draws."""
    return jnp.exp(self.mean + self.std * draws)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogStudent(Law):
  """`ln t = mean + std T`, T of Student's law, on `[t_min, t_max]`.

  Few degrees of freedom make heavy tails: at 0.01, ln t is nearly uniform far
  from the mean. With `T = sqrt(df) sinh(y)`, y has the density `cosh(y)^-df` up
  to a factor; its integral is a table, between whose entries y is linear.

  References:
    Lee et al. 2024 (arXiv:2410.14895); values of FastGen's code.

  Example:
    >>> law = LogStudent(std=0.2, df=0.01, t_min=1.0, t_max=80.0)
    >>> [round(float(t), 2) for t in law.transform(jnp.array([0.0, 1.0]))]
    [1.0, 80.0]
  """

  mean: Finite = 0.0
  std: Positive = 0.2
  df: Positive = 0.01
  t_min: Amount = 0.002
  t_max: End = 80.0

  def transform(self, draws: Array) -> Array:
    """Map uniform draws to times."""
    scale = self.std * math.sqrt(self.df)
    # The logarithm of 0 has no place in a table.
    low = max(self.t_min, float(np.finfo(np.float32).tiny))
    ends = np.arcsinh((np.log([low, self.t_max]) - self.mean) / scale)
    y = np.linspace(ends[0], ends[1], _TABLE)
    density = np.cosh(y) ** -self.df
    below = np.cumsum(np.append(0, density[1:] + density[:-1]))
    y = jnp.interp(draws, jnp.asarray(below / below[-1]), jnp.asarray(y))
    # Rounding must not leave the interval.
    t = jnp.exp(self.mean + scale * jnp.sinh(y))
    return jnp.clip(t, self.t_min, self.t_max)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArctanLogNormal(_Normal):
  """`t = scale arctan(exp(mean + std N(0, 1)) / sigma_data)`.

  At scale 1 these are angles of TrigFlow, whose noise level `sigma_data tan t`
  is log-normal (Lu, Song 2024, arXiv:2410.11081); at scale 2 / pi they are
  times in (0, 1).

  Example:
    >>> law = ArctanLogNormal(sigma_data=1.0)
    >>> round(float(law.transform(jnp.array(0.0))), 4)    # pi / 4
    0.7854
  """

  sigma_data: Positive = 0.5
  scale: Positive = 1.0

  def transform(self, draws: Array) -> Array:
    """Return the scaled angles of the log-normal noise levels."""
    level = jnp.exp(self.mean + self.std * draws)
    return self.scale * jnp.arctan(level / self.sigma_data)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Karras(Law):
  """Noise levels `(t_max^(1/rho) + u (t_min^(1/rho) - t_max^(1/rho)))^rho`.

  u = 0 is the noisiest level; u is uniform on `[0, last]`.

  Example:
    >>> round(Karras().transform(jnp.array(0.5)).item(), 3)
    2.515
  """

  t_min: Amount = 0.002
  t_max: End = 80.0
  rho: Positive = 7.0
  last: PositiveShare = 1.0

  def transform(self, draws: Array) -> Array:
    """Map draws in [0, 1] to times from `t_max` down."""
    high, low = (t ** (1 / self.rho) for t in (self.t_max, self.t_min))
    return (high + self.last * draws * (low - high)) ** self.rho

  def inverse(self, t: Array) -> Array:
    """Map times to draws."""
    high, low = (t ** (1 / self.rho) for t in (self.t_max, self.t_min))
    return (t ** (1 / self.rho) - high) / (low - high) / self.last


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant:
  """Every time is `t`; one-step distillation trains at `t_max` only.

  Example:
    >>> Constant(t=1.0)(jax.random.key(0), 2).tolist()
    [1.0, 1.0]
  """

  t: Amount

  def __call__(self, key: Array, n: int) -> Array:
    """Sample n times `[n]`."""
    return jnp.full((n,), self.t)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interleaved:
  """Rows of two laws: of every m rows the first k follow `first`.

  Example:
    >>> law = Interleaved(first=Constant(t=1.0), second=Constant(t=2.0))
    >>> law(jax.random.key(0), 4).tolist()
    [1.0, 2.0, 1.0, 2.0]
  """

  first: TimeSampler
  second: TimeSampler
  block: rows.Block = (2, 1)

  def __call__(self, key: Array, n: int) -> Array:
    """Sample n times `[n]`; m divides n."""
    rows.check_block(self.block, n)
    m, k = self.block
    keys = jax.random.split(key)
    first = self.first(keys[0], n // m * k)
    second = self.second(keys[1], n // m * (m - k))
    return rows.merge(first, second, self.block)
