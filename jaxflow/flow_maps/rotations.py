"""Flow maps along circles, for paths of unit variance.

References:
  Lu, Song 2024 (arXiv:2410.11081), section 3 for the trigonometric jump; Zhou
  et al. 2025 (arXiv:2503.07565) for the rotation.
"""

import jax.numpy as jnp

from jaxflow import paths
from jaxflow.paths import Path, expand
from jaxflow.types import FlowMap, ModelFn


def trigonometric(model_fn: ModelFn) -> FlowMap:
  """Jump along the circle: `xs = cos(t - s) xt - sin(t - s) F(xt, t, s)`.

  For a velocity network on `Trigonometric(t_max=pi / 2)`, whose time is an
  angle. With s = t_min = 0 this is the consistency function of TrigFlow.

  Example:
    >>> net = lambda xt, t, s, cond: xt
    >>> t, s = jnp.array([jnp.pi / 2]), jnp.array([0.0])
    >>> trigonometric(net)(jnp.array([[1.0]]), t, s, None).tolist()
    [[-1.0]]
  """

  def flow_map(xt, t, s, cond):
    value = model_fn(xt, t, s, cond)
    return expand(jnp.cos(t - s), xt) * xt - expand(jnp.sin(t - s), xt) * value

  return flow_map


def rotation(model_fn: ModelFn, *, path: Path) -> FlowMap:
  """Jump along the circle on which a path scaled to unit variance lies.

  With `sigma` in units of `noise_std` and `q = alpha_t^2 + sigma_t^2`,

    xs = [(alpha_t alpha_s + sigma_t sigma_s) xt
          - (alpha_s sigma_t - alpha_t sigma_s) sqrt(q) F(xt, t, s)] / q,

  which is the jump of `trigonometric` on the trigonometric path.

  Example:
    >>> net = lambda xt, t, s, cond: xt
    >>> t, s = jnp.array([1.0]), jnp.array([0.0])
    >>> rotation(net, path=paths.Linear())(
    ...     jnp.array([[1.0]]), t, s, None).tolist()
    [[-1.0]]
  """
  unit = paths.noise_std(path)

  def flow_map(xt, t, s, cond):
    alpha_t, sigma_t = path.alpha(t), path.sigma(t) / unit
    alpha_s, sigma_s = path.alpha(s), path.sigma(s) / unit
    q = alpha_t**2 + sigma_t**2
    keep = (alpha_t * alpha_s + sigma_t * sigma_s) / q
    turn = (alpha_s * sigma_t - alpha_t * sigma_s) / jnp.sqrt(q)
    return expand(keep, xt) * xt - expand(turn, xt) * model_fn(xt, t, s, cond)

  return flow_map
