"""Conversion of a network from one path to another.

All paths have the same marginal distributions, up to scale. Points of the same
noise level correspond:

  level = sigma(t) / alpha(t) = sigma~(t~) / alpha~(t~)                   (1)
  x~ = (alpha~(t~) / alpha(t)) x                                          (2)

Data and noise predictions are unchanged; velocity, v and score follow from them
(`predictions.convert`). So a network of any path becomes a network of any other
(`on_path`). The level is the time of the variance-exploding path.

References:
  Karras et al. 2022 (arXiv:2206.00364), section 2.
"""

import jax
import jax.numpy as jnp

from jaxflow import paths
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

  Noise levels outside of the source's range are clipped to it. The range leaves
  out a thousandth of the path at an end where the prediction does not determine
  the velocity: data without noise, noise or score without data.

  Args:
    model_fn: A network of `source`.
    source: The path that it was trained on.
    target: The path of the result.
    prediction: Its prediction.
    sigma_data: Standard deviation of the data, for the prediction "edm".

  Returns:
    A network on `target` that predicts the velocity.

  Raises:
    ValueError: If the inverse of the source's noise level is not known.

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
  t_min, t_max = _regular_times(source, prediction)
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
    scale = _norm(source, at) / _norm(target, t)
    x = expand(scale, xt) * xt
    value = model_fn(x, at, end, cond)
    data, noise = (
      convert(source, value, x, at, source=prediction, target=kind)
      for kind in ("data", "noise")
    )
    return paths.velocity(target, data, noise, t)

  time_at(source, jnp.ones(()))  # Raises if there is no inverse.
  return converted


def _regular_times(path: Path, prediction: Prediction) -> tuple[float, float]:
  """Return the ends of the times at which a prediction gives a velocity."""
  with jax.ensure_compile_time_eval():
    t = jnp.asarray([path.t_min, path.t_max])
    a, b = row(path, t, prediction)
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
