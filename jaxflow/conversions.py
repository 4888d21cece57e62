"""Networks of one path, or of one preconditioning, as networks of another.

All paths carry the same family of marginals, up to scale. Points of the same
noise level, in data units, correspond:

  level = sigma(t) / alpha(t) = sigma~(t~) / alpha~(t~)                   (1)
  x~ = (alpha~(t~) / alpha(t)) x                                          (2)

Data and noise predictions stay as they are; velocity, v and score follow from
them (`predictions.convert`). The level is the time of the variance-exploding
path. On the angular path, `Trigonometric(t_max=pi / 2, noise_std=sd)` with sd
the standard deviation of the data,

  normalized   u = sd F(x / std(x), t)                                    (3)
  EDM          u = -sd F(x / sd, ln(sd tan t) / 4)                        (4)
  linear       u = ((c - s) x + sd F(x / (sd (c + s)), s / (c + s))) / (c + s)
                                                                          (5)

with c = cos t, s = sin t, F the raw network and u the velocity. (4) and (5) are
finite at both ends, where the way over a denoiser divides 0 by 0.

References:
  Karras et al. 2022 (arXiv:2206.00364), section 2; Lu, Song 2024
  (arXiv:2410.11081), section 3.
"""

import jax.numpy as jnp

from jaxflow import paths
from jaxflow.paths import Path, over
from jaxflow.types import Array, ModelFn


def noise_level(path: Path, t: Array) -> Array:
  """Return `sigma(t) / alpha(t)`, eq. (1): infinite where alpha = 0, `[...]`.

  Example:
    >>> float(noise_level(paths.Linear(), jnp.array(0.75)))
    3.0
  """
  return path.sigma(t) / path.alpha(t)


def time_at(path: Path, level: Array) -> Array:
  """Return the time at which a path has a noise level, eq. (1), `[...]`.

  Raises:
    ValueError: If the inverse of the path's noise level is not known.

  Example:
    >>> float(time_at(paths.Linear(), jnp.array(3.0)))
    0.75
  """
  level = level / paths.noise_std(path)
  match path:
    case paths.Linear():
      return level / (1 + level)
    case paths.Trigonometric():
      return 2 * path.t_max / jnp.pi * jnp.arctan(level)
    case paths.VarianceExploding():
      return level
    case paths.VariancePreserving():
      low, slope = path.beta_min, path.beta_max - path.beta_min
      twice = 2 * jnp.log1p(level**2)
      # (root - low) / slope without the cancellation at small levels.
      return twice / (low + jnp.sqrt(low**2 + slope * twice))
  raise ValueError(
    f"{type(path).__name__} has no known inverse of its noise level: use "
    "Linear, Trigonometric, VariancePreserving or VarianceExploding"
  )


def denoiser_on(model_fn: ModelFn, path: Path) -> ModelFn:
  """Use a denoiser of the variance-exploding path on another one, eq. (1)-(2).

  Args:
    model_fn: A network that predicts data; its time is the noise level.
    path: The other path; not at times with alpha = 0.

  Returns:
    A network on `path` that predicts data.

  Example:
    >>> net = lambda xt, t, s, cond: xt + over(t, xt)
    >>> t = jnp.array([0.75])
    >>> denoiser_on(net, paths.Linear())(jnp.ones((1, 1)), t, t, None).tolist()
    [[7.0]]
  """

  def converted(xt, t, s, cond):
    levels = noise_level(path, t), noise_level(path, s)
    return model_fn(xt / over(path.alpha(t), xt), *levels, cond)

  return converted


def normalized(model_fn: ModelFn, path: Path) -> ModelFn:
  """Give a raw network points of unit variance, eq. (3).

  Data are taken to have the standard deviation of the path's noise, sd; then
  `std(x) = sqrt((alpha sd)^2 + sigma^2)`, sd itself on the trigonometric path.

  Args:
    model_fn: The raw network F.
    path: A path with `noise_std`.

  Returns:
    `sd F(xt / std(xt), t, s, cond)`.

  Example:
    >>> net = lambda xt, t, s, cond: xt
    >>> t = jnp.array([1.0])
    >>> path = paths.Linear(noise_std=0.5)
    >>> normalized(net, path)(jnp.ones((1, 1)), t, t, None).tolist()
    [[1.0]]
  """
  unit = paths.noise_std(path)

  def converted(xt, t, s, cond):
    std = jnp.hypot(path.alpha(t) * unit, path.sigma(t))
    return unit * model_fn(xt / over(std, xt), t, s, cond)

  return converted


def trigonometric_from_edm(
  model_fn: ModelFn, *, sigma_data: float = 0.5
) -> ModelFn:
  """Use a raw EDM network as velocity network on the angular path, eq. (4).

  An EDM network was trained up to the noise level 80: begin sampling at
  `t = arctan(80 / sigma_data)`.

  Args:
    model_fn: The raw network, called with s = t.
    sigma_data: Standard deviation of the data.

  Returns:
    A velocity network on `Trigonometric(t_max=pi / 2, noise_std=sigma_data)`.

  Example:
    >>> net = lambda xt, t, s, cond: xt
    >>> t = jnp.array([1.0])
    >>> trigonometric_from_edm(net)(jnp.ones((1, 1)), t, t, None).tolist()
    [[-1.0]]
  """

  def converted(xt, t, s, cond):
    del s
    # The floors keep the logarithm finite at t = 0 and t = pi / 2, where
    # rounding can make the cosine negative.
    cos, sin = (jnp.maximum(x, 1e-7) for x in (jnp.cos(t), jnp.sin(t)))
    c_noise = jnp.log(sigma_data * sin / cos) / 4
    return -sigma_data * model_fn(xt / sigma_data, c_noise, c_noise, cond)

  return converted


def trigonometric_from_linear(
  model_fn: ModelFn, *, sigma_data: float = 1.0
) -> ModelFn:
  """Use a flow of the linear path as velocity network on the angular one.

  Args:
    model_fn: A velocity network of the linear path on data / sigma_data, called
      with s = t.
    sigma_data: Standard deviation of the data.

  Returns:
    A velocity network on `Trigonometric(t_max=pi / 2, noise_std=sigma_data)`,
    eq. (5).

  Example:
    >>> net = lambda xt, t, s, cond: xt
    >>> t = jnp.array([0.0])
    >>> trigonometric_from_linear(net)(jnp.ones((1, 1)), t, t, None).tolist()
    [[2.0]]
  """

  def converted(xt, t, s, cond):
    del s
    cos, sin = jnp.cos(t), jnp.sin(t)
    total = cos + sin
    time = sin / total
    inner = xt / (sigma_data * over(total, xt))
    value = sigma_data * model_fn(inner, time, time, cond)
    return (over(cos - sin, xt) * xt + value) / over(total, xt)

  return converted
