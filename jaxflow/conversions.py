"""Networks of one path, or of one preconditioning, as networks of another.

All paths carry the same family of marginals, up to scale. Points of the same
noise level, in data units, correspond:

  level = sigma(t) / alpha(t) = sigma~(t~) / alpha~(t~)                   (1)
  x~ = (alpha~(t~) / alpha(t)) x                                          (2)

Data and noise predictions stay as they are; velocity, v and score follow from
them (`predictions.convert`), so that a network of any path is one of any other
(`on_path`). The level is the time of the variance-exploding path. On the
angular path, `Trigonometric(t_max=pi / 2, noise_std=sd)` with sd the standard
deviation of the data,

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

import math

import jax
import jax.numpy as jnp

from jaxflow import paths, predictions
from jaxflow.paths import Path, over
from jaxflow.predictions import Parameterization, Prediction
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
  raise ValueError(
    f"{type(path).__name__} has no known inverse of its noise level: use "
    "Linear, Trigonometric, VariancePreserving or VarianceExploding"
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

  Noise levels that the source does not reach are taken as its nearest; so are
  times where its prediction says nothing of the velocity (data without noise,
  noise or score without data), from a thousandth of the path away.

  Args:
    model_fn: A network of `source`.
    source: The path that it was trained on.
    target: The path of the result.
    prediction: What it predicts.
    sigma_data: Standard deviation of the data, for the prediction "edm".

  Returns:
    A network on `target` that predicts the velocity.

  Raises:
    ValueError: If the inverse of the source's noise level is not known.

  Example:
    >>> net = lambda xt, t, s, cond: xt / over(t, xt)         # all data are 0
    >>> on_linear = on_path(net, source=paths.VarianceExploding(),
    ...                     target=paths.Linear())
    >>> t = jnp.array([0.5])
    >>> on_linear(jnp.ones((1, 1)), t, t, None).tolist()
    [[2.0]]
  """
  if prediction == "edm":
    model_fn = predictions.edm_denoiser(model_fn, sigma_data=sigma_data)
    prediction = "data"
  t_min, t_max = _regular_times(source, prediction)
  if source == target and (t_min, t_max) == (source.t_min, source.t_max):
    return predictions.as_prediction(
      model_fn, source, source=prediction, target="velocity"
    )

  def time_of(t):
    ends = jnp.asarray([t_min, t_max], t.dtype)
    low, high = noise_level(source, ends)
    # Times outside by rounding are brought back.
    level = jnp.clip(noise_level(target, t), low, high)
    return jnp.clip(time_at(source, level), *ends)

  def converted(xt, t, s, cond):
    at, end = time_of(t), time_of(s)
    # alpha / alpha~ = sigma / sigma~, of which either may be 0 / 0.
    scale = _norm(source, at) / _norm(target, t)
    x = over(scale, xt) * xt
    value = model_fn(x, at, end, cond)
    data, noise = (
      predictions.convert(source, value, x, at, source=prediction, target=kind)
      for kind in ("data", "noise")
    )
    return paths.velocity(target, data, noise, t)

  time_at(source, jnp.ones(()))  # Raises if there is no inverse.
  return converted


def _regular_times(path: Path, prediction: Prediction) -> tuple[float, float]:
  """Return the ends of the times at which a prediction gives a velocity."""
  with jax.ensure_compile_time_eval():
    t = jnp.asarray([path.t_min, path.t_max])
    a, b = predictions.row(path, t, prediction)
    # `predictions.convert` divides by it; infinite are scores of data.
    det = path.alpha(t) * b - path.sigma(t) * a
    regular = ((jnp.abs(det) > 1e-6) & jnp.isfinite(det)).tolist()
  margin = 1e-3 * (path.t_max - path.t_min)
  return (
    path.t_min + (0 if regular[0] else margin),
    path.t_max - (0 if regular[1] else margin),
  )


def _norm(path: Path, t: Array) -> Array:
  return jnp.hypot(path.alpha(t), path.sigma(t))


def normalized(model_fn: ModelFn, *, path: Path) -> ModelFn:
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
    >>> normalized(net, path=path)(jnp.ones((1, 1)), t, t, None).tolist()
    [[1.0]]
  """
  unit = paths.noise_std(path)

  def converted(xt, t, s, cond):
    std = jnp.hypot(path.alpha(t) * unit, path.sigma(t))
    return unit * model_fn(xt / over(std, xt), t, s, cond)

  return converted


def trigonometric_from_edm(model_fn: ModelFn, *, path: Path) -> ModelFn:
  """Use a raw EDM network as velocity network on the angular path, eq. (4).

  An EDM network was trained up to the noise level 80: begin sampling at
  `t = arctan(80 / sd)`.

  Args:
    model_fn: The raw network, called with s = t.
    path: The angular path, `Trigonometric(t_max=pi / 2, noise_std=sd)`.

  Returns:
    A velocity network on `path`.

  Raises:
    ValueError: If the path's times are no angles.

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

  Args:
    model_fn: A velocity network of the linear path on data / sd, called with
      s = t.
    path: The angular path, `Trigonometric(t_max=pi / 2, noise_std=sd)`.

  Returns:
    A velocity network on `path`, eq. (5).

  Raises:
    ValueError: If the path's times are no angles.

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
    value = unit * model_fn(xt / (unit * over(total, xt)), time, time, cond)
    return (over(cos - sin, xt) * xt + value) / over(total, xt)

  return converted


def _unit_of_angles(path: Path) -> float:
  """Return the standard deviation of the noise of the angular path."""
  if not isinstance(path, paths.Trigonometric) or path.t_max != math.pi / 2:
    raise ValueError(
      f"path={path}: this network stands on the angular path; give "
      "trigonometric with t_max=1.5707963267948966"
    )
  return paths.noise_std(path)
