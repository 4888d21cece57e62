"""Networks of one path, or raw ones, as networks of another path.

All paths have the same marginal distributions, up to scale. Points of the same
noise level correspond:

  level = sigma(t) / alpha(t) = sigma~(t~) / alpha~(t~)                   (1)
  x~ = (alpha~(t~) / alpha(t)) x                                          (2)

Data and noise predictions are unchanged; velocity, v and score follow from them
(`predictions.convert`). So a network of any path becomes a network of any other
(`on_path`). The level is the time of the variance-exploding path.

Scalings turn raw networks F into networks of the velocity u. On the angular
path, `Trigonometric(t_max=pi / 2, noise_std=sd)` with sd the standard deviation
of the data, c = cos t and s = sin t,

  normalized   u = sd F(x / std(x), t)                                    (3)
  EDM          u = -sd F(x / sd, ln(sd tan t) / 4)                        (4)
  linear       u = ((c - s) x + sd F(x / (sd (c + s)), s / (c + s))) / (c + s)
                                                                          (5)

(4) and (5) are what `on_path` gives, without its 0 / 0 at the ends.

References:
  Karras et al. 2022 (arXiv:2206.00364), section 2 and table 1; Lu, Song 2024
  (arXiv:2410.11081), section 3.
"""

import math
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow import paths
from jaxflow.options import PositiveShare
from jaxflow.paths import Path, expand
from jaxflow.predictions.convert import (
  Parameterization,
  Prediction,
  as_prediction,
  convert,
  edm_denoiser,
  row,
)
from jaxflow.types import Array, ModelFn


class SourcePath(Path, Protocol):
  """The path of a network, where that of a run stands beside it."""


def noise_level(path: Path, t: Array) -> Array:
  """Return `sigma(t) / alpha(t)`, eq. (1): infinite where alpha = 0, `[...]`.

  Example:
    >>> float(noise_level(paths.Linear(), jnp.array(0.75)))
    3.0
  """
  # A path of the user's may end slightly below zero by rounding.
  return path.sigma(t) / jnp.maximum(path.alpha(t), 0)


def time_at(path: Path, level: Array) -> Array:
  """Return the time at which a path has a noise level, eq. (1), `[...]`.

  The paths of `paths` have a known inverse; others raise ValueError.

  Example:
    >>> float(time_at(paths.Linear(), jnp.array(3.0)))
    0.75
  """
  level = level / paths.noise_std(path)
  match path:
    case paths.Linear():
      return 1 / (1 + 1 / level)  # 0 and infinity have their limits.
    case paths.Trigonometric():
      return 2 * path.t_max / jnp.pi * jnp.arctan(level)
    case paths.VarianceExploding():
      return level
    case paths.VariancePreserving():
      low, slope = path.beta_min, path.beta_max - path.beta_min
      twice = 2 * jnp.log1p(level**2)
      # (root - low) / slope without the cancellation at small levels.
      return twice / (low + jnp.sqrt(low**2 + slope * twice))
    case paths.Discrete():
      return path.time_of(-2 * jnp.log(level))
  raise ValueError(
    f"{type(path).__name__} has no known inverse of its noise level: use "
    "Linear, Trigonometric, VariancePreserving, Discrete or VarianceExploding"
  )


def on_path(
  model_fn: ModelFn,
  *,
  source: Path,
  target: Path,
  prediction: Parameterization = "velocity",
  sigma_data: float = 0.5,
) -> ModelFn:
  """Use a network of one path as velocity network on another, eq. (1)-(2).

  `prediction` is that of the network on `source`, a path of `time_at`. Noise
  levels outside of the source's range are clipped to it. The range leaves out a
  thousandth of the path at an end where the prediction does not determine the
  velocity: data without noise, noise or score without data.

  Example:
    >>> net = lambda xt, t, s, cond: xt / expand(t, xt)         # all data are 0
    >>> on_linear = on_path(net, source=paths.VarianceExploding(),
    ...                     target=paths.Linear())
    >>> t = jnp.array([0.5])
    >>> on_linear(jnp.ones((1, 1)), t, t, None).tolist()
    [[2.0]]
  """
  if prediction == "edm":
    model_fn = edm_denoiser(model_fn, sigma_data=sigma_data)
    prediction = "data"
  t_min, t_max = regular_times(source, prediction)
  if source == target and (t_min, t_max) == (source.t_min, source.t_max):
    return as_prediction(model_fn, source, source=prediction, target="velocity")

  def time_of(t):
    ends = jnp.asarray([t_min, t_max], t.dtype)
    low, high = noise_level(source, ends)
    # Times outside by rounding are brought back.
    level = jnp.clip(noise_level(target, t), low, high)
    return jnp.clip(time_at(source, level), *ends)

  def converted(xt, t, s, cond):
    at, end = time_of(t), time_of(s)
    # alpha / alpha~ = sigma / sigma~, of which either may be 0 / 0.
    scale = jnp.hypot(source.alpha(at), source.sigma(at)) / jnp.hypot(
      target.alpha(t), target.sigma(t)
    )
    x = expand(scale, xt) * xt
    value = model_fn(x, at, end, cond)
    data, noise = (
      convert(source, value, x, at, source=prediction, target=kind)
      for kind in ("data", "noise")
    )
    return paths.velocity(target, data, noise, t)

  time_at(source, jnp.ones(()))  # Raises if there is no inverse.
  return converted


def regular_times(
  path: Path, prediction: Parameterization
) -> tuple[float, float]:
  """Return the ends of the times at which a prediction gives a velocity."""
  if prediction == "edm":
    prediction = "data"

  @jax.jit  # One program in place of one an operation: sampling waits for it.
  def is_regular(t):
    a, b = row(path, t, prediction)
    # `predictions.convert` divides by it; infinite are scores of data.
    det = path.alpha(t) * b - path.sigma(t) * a
    return (jnp.abs(det) > 1e-6) & jnp.isfinite(det)

  with jax.ensure_compile_time_eval():
    regular = is_regular(np.array([path.t_min, path.t_max], float)).tolist()
  margin = 1e-3 * (path.t_max - path.t_min)
  low, high = (0 if each else margin for each in regular)
  return path.t_min + low, path.t_max - high


def normalized(model_fn: ModelFn, *, path: Path) -> ModelFn:
  """Give a raw network points of unit variance, eq. (3).

  Data are taken to have the standard deviation of the path's noise, sd; then
  `std(x) = sqrt((alpha sd)^2 + sigma^2)`, sd itself on the trigonometric path.

  Example:
    >>> net = lambda xt, t, s, cond: xt
    >>> x, t = jnp.ones((1, 1)), jnp.array([1.0])
    >>> path = paths.Linear(noise_std=0.5)
    >>> normalized(net, path=path)(x, t, t, None).tolist()
    [[1.0]]
  """
  unit = paths.noise_std(path)

  def converted(xt, t, s, cond):
    std = jnp.hypot(path.alpha(t) * unit, path.sigma(t))
    return unit * model_fn(xt / expand(std, xt), t, s, cond)

  return converted


def from_data(
  model_fn: ModelFn, *, path: Path, floor: PositiveShare = 0.05
) -> ModelFn:
  """Use a network of the data as a network of the linear path's velocity.

  The velocity is `(xt - data) / max(t, floor)`, of every head of the network;
  the floor bounds its slope near the data.

  References:
    Lu et al. 2026 (arXiv:2601.22158), whose images are predictions.

  Example:
    >>> net = lambda xt, t, s, cond: 0 * xt
    >>> x, t = jnp.ones((1, 1)), jnp.array([0.25])
    >>> from_data(net, path=paths.Linear())(x, t, t, None).tolist()
    [[4.0]]
  """
  if not isinstance(path, paths.Linear):
    raise ValueError(f"path {path}: from_data divides by t; use linear")

  def converted(xt, t, s, cond):
    rate = 1 / expand(jnp.clip(t, floor, 1), xt)
    heads = model_fn(xt, t, s, cond)
    return jax.tree.map(lambda data: rate * (xt - data), heads)

  return converted


def from_path(
  model_fn: ModelFn,
  *,
  path: Path,
  source: SourcePath,
  prediction: Prediction = "velocity",
) -> ModelFn:
  """Use a network of the path `source` as velocity network on another.

  It is `on_path` as a parameterization: with it a student on one path starts
  exactly as its teacher on another path, whatever the teacher predicts.

  Example:
    >>> net = lambda xt, t, s, cond: xt / expand(t, xt)
    >>> x, t = jnp.ones((1, 1)), jnp.array([0.5])
    >>> student = from_path(net, path=paths.Linear(),
    ...                     source=paths.VarianceExploding())
    >>> student(x, t, t, None).tolist()
    [[2.0]]
  """
  return on_path(model_fn, source=source, target=path, prediction=prediction)


def trigonometric_from_edm(model_fn: ModelFn, *, path: Path) -> ModelFn:
  """Use a raw EDM network as velocity network on the angular path, eq. (4).

  An EDM network was trained up to the noise level 80: begin sampling at
  `t = arctan(80 / sd)`. The network is called with s = t.

  Example:
    >>> net = lambda xt, t, s, cond: xt
    >>> x, t = jnp.ones((1, 1)), jnp.array([1.0])
    >>> path = paths.Trigonometric(t_max=math.pi / 2, noise_std=0.5)
    >>> trigonometric_from_edm(net, path=path)(x, t, t, None).tolist()
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

  Eq. (5). The network is one of data / sd; it is called with s = t.

  Example:
    >>> net = lambda xt, t, s, cond: xt
    >>> x, t = jnp.ones((1, 1)), jnp.array([0.0])
    >>> path = paths.Trigonometric(t_max=math.pi / 2)
    >>> trigonometric_from_linear(net, path=path)(x, t, t, None).tolist()
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
