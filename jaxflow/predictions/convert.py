"""Predictions of a network, and conversions between them.

Every prediction is a row `(a, b)`: `value = a data + b noise`. Together with
`xt = alpha data + sigma noise` this is a 2 x 2 system; solving it for the
wanted row `(p, q)` gives every conversion at once:

  target = [(p b - q a) xt + (q alpha - p sigma) value] / (alpha b - sigma a)
                                                                          (1)

The denominator is zero where value and xt determine only one of data and noise:
for data where sigma = 0, for noise where alpha = 0, for the score at both.

References:
  Salimans, Ho 2022 (arXiv:2202.00512), section 4 for v; Karras et al. 2022
  (arXiv:2206.00364), eq. 7 for the preconditioned denoiser.
"""

from typing import Literal

import jax.numpy as jnp

from jaxflow import paths
from jaxflow.paths import Path, expand
from jaxflow.types import Array, ModelFn

Prediction = Literal["data", "noise", "velocity", "v", "score"]

# The output of a network: a prediction, or the raw output of `edm_denoiser`.
Parameterization = Prediction | Literal["edm"]


def row(path: Path, t: Array, kind: Prediction) -> tuple[Array, Array]:
  """Return `(a, b)`, each `[...]` like t, with `value = a data + b noise`.

  Example:
    >>> a, b = row(paths.Linear(), jnp.array([0.25]), "velocity")
    >>> float(a[0]), float(b[0])
    (-1.0, 1.0)
  """
  c = paths.coefficients(path, t)
  zero, one = jnp.zeros_like(t), jnp.ones_like(t)
  match kind:
    case "data":
      return one, zero
    case "noise":
      return zero, one
    case "velocity":
      return c.d_alpha, c.d_sigma
    case "v":
      return -c.sigma, c.alpha
    case "score":
      return zero, -1 / c.sigma
  raise ValueError(
    f"prediction {kind!r} is unknown: use data, noise, velocity, v or score"
  )


def convert(
  path: Path,
  value: Array,
  xt: Array,
  t: Array,
  *,
  source: Prediction,
  target: Prediction,
) -> Array:
  """Convert a prediction `[B, ...]` into another, eq. (1).

  `value` was made at the points `xt`, at times t where `source` is not singular
  (module docstring).

  Example:
    >>> xt, v = jnp.array([[0.5]]), jnp.array([[1.0]])
    >>> convert(paths.Linear(), v, xt, jnp.array([0.5]),
    ...         source="velocity", target="data").tolist()
    [[0.0]]
  """
  if source == target:
    return value
  a, b = row(path, t, source)
  p, q = row(path, t, target)
  alpha, sigma = path.alpha(t), path.sigma(t)
  det = alpha * b - sigma * a
  from_xt = (p * b - q * a) / det
  from_value = (q * alpha - p * sigma) / det
  return expand(from_xt, xt) * xt + expand(from_value, xt) * value


def as_prediction(
  model_fn: ModelFn,
  path: Path,
  *,
  source: Parameterization,
  target: Prediction,
  sigma_data: float = 0.5,
) -> ModelFn:
  """Wrap a network that predicts `source` as one that predicts `target`.

  Example:
    >>> zero = lambda xt, t, s, cond: jnp.zeros_like(xt)   # data = 0 always
    >>> v = as_prediction(zero, paths.Linear(), source="data",
    ...                   target="velocity")
    >>> t = jnp.array([0.5])
    >>> v(jnp.array([[1.0]]), t, t, None).tolist()
    [[2.0]]
  """
  if source == "edm":
    model_fn = edm_denoiser(model_fn, sigma_data=sigma_data)
    source = "data"
  if source == target:
    return model_fn

  def converted(xt, t, s, cond):
    value = model_fn(xt, t, s, cond)
    return convert(path, value, xt, t, source=source, target=target)

  return converted


def edm_inputs(
  xt: Array, t: Array, s: Array, sigma_data: float
) -> tuple[Array, Array, Array]:
  """Return the inputs of a raw EDM network, `(c_in xt, ln(t)/4, ln(s)/4)`.

  Example:
    >>> t = jnp.array([1.0])
    >>> x, c, _ = edm_inputs(jnp.array([[2.0]]), t, t, sigma_data=0.0)
    >>> x.tolist(), c.tolist()
    ([[2.0]], [0.0])
  """
  c_in = 1 / jnp.sqrt(t**2 + sigma_data**2)
  return expand(c_in, xt) * xt, jnp.log(t) / 4, jnp.log(s) / 4


def edm_denoiser(model_fn: ModelFn, *, sigma_data: float = 0.5) -> ModelFn:
  """Precondition a raw network as a denoiser on the variance-exploding path.

  `D(x, t) = c_skip x + c_out F(c_in x, ln(t)/4)` with the coefficients of
  Karras et al. 2022, table 1.

  Example:
    >>> zero = lambda xt, t, s, cond: jnp.zeros_like(xt)
    >>> t = jnp.array([0.5])
    >>> edm_denoiser(zero)(jnp.array([[1.0]]), t, t, None).tolist()
    [[0.5]]
  """

  def denoiser(xt, t, s, cond):
    total = t**2 + sigma_data**2
    value = model_fn(*edm_inputs(xt, t, s, sigma_data), cond)
    c_skip = sigma_data**2 / total
    c_out = t * sigma_data / jnp.sqrt(total)
    return expand(c_skip, xt) * xt + expand(c_out, xt) * value

  return denoiser
