"""Flow maps that blend the point with the output of the network.

At t = s they are the identity by construction, which is the boundary condition
of a consistency model: `trajectory` for t > 0, `linear_skip` for t < t_max. The
EDM denoiser satisfies it at t = 0 only, `free` and `generator` nowhere.
Consistency skips are trained only for `s = path.t_min`.

References:
  Song et al. 2023 (arXiv:2303.01469), eq. 5 and appendix C for the EDM skip;
  Kim et al. 2023 (arXiv:2310.02279) for the trajectory.
"""

from typing import Annotated

import jax.numpy as jnp

from jaxflow import guidance, predictions
from jaxflow.flow_maps.velocities import Scale
from jaxflow.options import DataScale, OneCall, Positive, Predicts
from jaxflow.paths import expand
from jaxflow.types import FlowMap, ModelFn


def edm_skip(model_fn: ModelFn, *, sigma_data: DataScale = 0.5) -> FlowMap:
  """Precondition a raw network as a consistency model on the EDM path.

  `c_skip x + c_out F(c_in x, ln(t)/4)` with
  `c_skip = sd^2 / ((t - s)^2 + sd^2)`, `c_out = (t - s) sd / sqrt(t^2 + sd^2)`.

  Example:
    >>> net = lambda xt, t, s, cond: xt
    >>> t = jnp.array([0.002])
    >>> edm_skip(net)(jnp.array([[1.0]]), t, t, None).tolist()
    [[1.0]]
  """

  def flow_map(xt, t, s, cond):
    value = model_fn(*predictions.edm_inputs(xt, t, s, sigma_data), cond)
    c_skip = sigma_data**2 / ((t - s) ** 2 + sigma_data**2)
    c_out = (t - s) * sigma_data / jnp.sqrt(t**2 + sigma_data**2)
    return expand(c_skip, xt) * xt + expand(c_out, xt) * value

  return flow_map


def edm_denoiser(
  model_fn: Annotated[ModelFn, Predicts("edm")], *, sigma_data: DataScale = 0.5
) -> FlowMap:
  """Precondition a raw network as a denoiser on the EDM path, whatever s is.

  This is `predictions.edm_denoiser`, and the identity at t = 0, where ln(t) is
  infinite.

  Example:
    >>> net = lambda xt, t, s, cond: xt
    >>> t = jnp.array([0.0])
    >>> edm_denoiser(net)(jnp.array([[1.0]]), t, t, None).tolist()
    [[1.0]]
  """
  denoiser = predictions.edm_denoiser(model_fn, sigma_data=sigma_data)

  def flow_map(xt, t, s, cond):
    del s
    noisy = t > 0
    # Replaced before the logarithm, or the gradient would be NaN.
    safe = jnp.where(noisy, t, 1)
    return jnp.where(expand(noisy, xt), denoiser(xt, safe, safe, cond), xt)

  return flow_map


def trajectory(model_fn: ModelFn, *, sigma_data: DataScale = 0.5) -> FlowMap:
  """Precondition a raw network as a jump from any t to any s, EDM path.

  `G = (s / t) x + (1 - s / t) g(x, t, s)` with g the preconditioned denoiser
  (`predictions.edm_denoiser`) that sees s > 0 too: its raw network is called as
  `F(c_in x, ln(t)/4, ln(s)/4, cond)`. At s = t this is the identity, and
  g(x, t, t) is trained as the denoiser.

  Example:
    >>> zero = lambda xt, t, s, cond: 0 * xt
    >>> t, s = jnp.array([1.0]), jnp.array([0.5])
    >>> trajectory(zero, sigma_data=1.0)(jnp.ones((1, 1)), t, s, None).tolist()
    [[0.75]]
  """
  denoiser = predictions.edm_denoiser(model_fn, sigma_data=sigma_data)

  def flow_map(xt, t, s, cond):
    kept = expand(s / t, xt)
    return kept * xt + (1 - kept) * denoiser(xt, t, s, cond)

  return flow_map


def linear_skip(model_fn: ModelFn, *, t_max: Positive) -> FlowMap:
  """Blend identity and network: `(1 - c) x + c F`, `c = (t - s) / (t_max - s)`.

  Example:
    >>> net = lambda xt, t, s, cond: 0 * xt
    >>> t, s = jnp.array([2.0]), jnp.array([1.0])
    >>> linear_skip(net, t_max=3.0)(jnp.array([[1.0]]), t, s, None).tolist()
    [[0.5]]
  """

  def flow_map(xt, t, s, cond):
    c = expand(jnp.clip((t - s) / (t_max - s), 0, 1), xt)
    return (1 - c) * xt + c * model_fn(xt, t, s, cond)

  return flow_map


def hard_boundary(model_fn: ModelFn) -> FlowMap:
  """Use the network where t > s, and the identity elsewhere.

  It is not differentiable at t = s: use it in discrete-time losses only.

  Example:
    >>> net = lambda xt, t, s, cond: 0 * xt
    >>> t, s = jnp.array([1.0, 0.5]), jnp.array([0.5, 0.5])
    >>> hard_boundary(net)(jnp.ones((2, 1)), t, s, None).tolist()
    [[0.0], [1.0]]
  """

  def flow_map(xt, t, s, cond):
    return jnp.where(expand(t <= s, xt), xt, model_fn(xt, t, s, cond))

  return flow_map


def generator(
  model_fn: Annotated[ModelFn, OneCall()], *, omega: Scale = 1.0
) -> FlowMap:
  """Return the output of a network that makes samples of noise.

  The network has guidance as an input. Its output is a sample, whatever s is:
  one call from the noise is all.

  Example:
    >>> net = lambda xt, t, s, cond: cond["omega"][:, None] * xt
    >>> t, s = jnp.array([1.0]), jnp.array([0.0])
    >>> generator(net, omega=2.0)(jnp.ones((1, 1)), t, s, None).tolist()
    [[2.0]]
  """
  return guidance.fix_guidance(model_fn, omega=omega)


def free(model_fn: ModelFn) -> FlowMap:
  """Return the network itself; a boundary loss must teach the boundary.

  Example:
    >>> net = lambda xt, t, s, cond: 0 * xt
    >>> t = jnp.array([1.0])
    >>> free(net)(jnp.ones((1, 1)), t, t, None).tolist()
    [[0.0]]
  """
  return model_fn
