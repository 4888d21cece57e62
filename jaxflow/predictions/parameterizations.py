"""Scalings that turn raw networks into velocity networks of a path.

On the angular path, `Trigonometric(t_max=pi / 2, noise_std=sd)` with sd the
standard deviation of the data, c = cos t, s = sin t, F the raw network and u
the velocity,

  normalized   u = sd F(x / std(x), t)                                    (1)
  EDM          u = -sd F(x / sd, ln(sd tan t) / 4)                        (2)
  linear       u = ((c - s) x + sd F(x / (sd (c + s)), s / (c + s))) / (c + s)
                                                                          (3)

(2) and (3) are what `conversions.on_path` gives, without its 0 / 0 at the ends.

References:
  Karras et al. 2022 (arXiv:2206.00364), table 1; Lu, Song 2024
  (arXiv:2410.11081), section 3.
"""

import math

import jax.numpy as jnp

from jaxflow import paths
from jaxflow.paths import Path, expand
from jaxflow.types import ModelFn


def normalized(model_fn: ModelFn, *, path: Path) -> ModelFn:
  """Give a raw network points of unit variance, eq. (1).

  Data are taken to have the standard deviation of the path's noise, sd; then
  `std(x) = sqrt((alpha sd)^2 + sigma^2)`, sd itself on the trigonometric path.

  Example:
    >>> net = lambda xt, t, s, cond: xt
    >>> t = jnp.array([1.0])
    >>> path = paths.Linear(noise_std=0.5)
    >>> normalized(net, path=path)(jnp.ones((1, 1)), t, t, None).tolist()
    [[1.0]]
  """
  unit = paths.noise_std(path)

  def converted(xt, t, s, cond):
    std = jnp.hypot(path.alpha(t) * unit, path.sigma(t))
    return unit * model_fn(xt / expand(std, xt), t, s, cond)

  return converted


def trigonometric_from_edm(model_fn: ModelFn, *, path: Path) -> ModelFn:
  """Use a raw EDM network as velocity network on the angular path, eq. (2).

  An EDM network was trained up to the noise level 80: begin sampling at
  `t = arctan(80 / sd)`. The network is called with s = t.

  Example:
    >>> net = lambda xt, t, s, cond: xt
    >>> t = jnp.array([1.0])
    >>> path = paths.Trigonometric(t_max=math.pi / 2, noise_std=0.5)
    >>> trigonometric_from_edm(net, path=path)(
    ...     jnp.ones((1, 1)), t, t, None).tolist()
    [[-1.0]]
  """
  unit = _unit_of_angles(path)

  def converted(xt, t, s, cond):
    del s
    # The floors keep the logarithm finite at t = 0 and t = pi / 2, where
    # rounding can make the cosine negative.
    cos, sin = (jnp.maximum(x, 1e-7) for x in (jnp.cos(t), jnp.sin(t)))
    c_noise = jnp.log(unit * sin / cos) / 4
    return -unit * model_fn(xt / unit, c_noise, c_noise, cond)

  return converted


def trigonometric_from_linear(model_fn: ModelFn, *, path: Path) -> ModelFn:
  """Use a flow of the linear path as velocity network on the angular one.

  Eq. (3). The network is one of data / sd; it is called with s = t.

  Example:
    >>> net = lambda xt, t, s, cond: xt
    >>> t = jnp.array([0.0])
    >>> path = paths.Trigonometric(t_max=math.pi / 2)
    >>> trigonometric_from_linear(net, path=path)(
    ...     jnp.ones((1, 1)), t, t, None).tolist()
    [[2.0]]
  """
  unit = _unit_of_angles(path)

  def converted(xt, t, s, cond):
    del s
    cos, sin = jnp.cos(t), jnp.sin(t)
    total = cos + sin
    time = sin / total
    value = unit * model_fn(xt / (unit * expand(total, xt)), time, time, cond)
    return (expand(cos - sin, xt) * xt + value) / expand(total, xt)

  return converted


def _unit_of_angles(path: Path) -> float:
  """Return the standard deviation of the noise of the angular path."""
  if not isinstance(path, paths.Trigonometric) or path.t_max != math.pi / 2:
    raise ValueError(
      f"path={path}: this network stands on the angular path; give "
      "trigonometric with t_max=1.5707963267948966"
    )
  return paths.noise_std(path)
