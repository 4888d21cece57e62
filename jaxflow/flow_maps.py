"""Flow maps: what carries a point from time t to an earlier time s.

Each function here turns a network into a flow map. The consistency skips are
trained only for `s = path.t_min`; at t = s each is the identity by
construction, which is the boundary condition of a consistency model.

References:
  Geng et al. 2025 (arXiv:2505.13447), eq. 12 for the average velocity; Song et
  al. 2023 (arXiv:2303.01469), eq. 5 and appendix C for the EDM skip.
"""

import jax.numpy as jnp

from jaxflow import predictions, solvers
from jaxflow.paths import over
from jaxflow.types import FlowMap, ModelFn


def average_velocity(model_fn: ModelFn) -> FlowMap:
  """Jump along the average velocity: `xs = xt - (t - s) F(xt, t, s)`.

  MeanFlow, shortcut models and, with s = t_min on the linear path, consistency
  models of a flow.

  Example:
    >>> net = lambda xt, t, s, cond: xt
    >>> t, s = jnp.array([1.0]), jnp.array([0.0])
    >>> average_velocity(net)(jnp.array([[1.0]]), t, s, None).tolist()
    [[0.0]]
  """

  def flow_map(xt, t, s, cond):
    return xt - over(t - s, xt) * model_fn(xt, t, s, cond)

  return flow_map


def ode_step(
  model_fn: ModelFn, *, solver: solvers.Solver = solvers.euler
) -> FlowMap:
  """Take one solver step along the velocity that the network predicts.

  Example:
    >>> net = lambda xt, t, s, cond: xt
    >>> t, s = jnp.array([1.0]), jnp.array([0.5])
    >>> ode_step(net)(jnp.array([[1.0]]), t, s, None).tolist()
    [[0.5]]
  """

  def flow_map(xt, t, s, cond):
    return solvers.step(solver, model_fn, xt, t, s, cond)

  return flow_map


def edm_skip(model_fn: ModelFn, *, sigma_data: float = 0.5) -> FlowMap:
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
    return over(c_skip, xt) * xt + over(c_out, xt) * value

  return flow_map


def linear_skip(model_fn: ModelFn, *, t_max: float) -> FlowMap:
  """Blend identity and network: `(1 - c) x + c F`, `c = (t - s) / (t_max - s)`.

  Example:
    >>> net = lambda xt, t, s, cond: 0 * xt
    >>> t, s = jnp.array([2.0]), jnp.array([1.0])
    >>> linear_skip(net, t_max=3.0)(jnp.array([[1.0]]), t, s, None).tolist()
    [[0.5]]
  """

  def flow_map(xt, t, s, cond):
    c = over(jnp.clip((t - s) / (t_max - s), 0, 1), xt)
    return (1 - c) * xt + c * model_fn(xt, t, s, cond)

  return flow_map


def hard_boundary(model_fn: ModelFn) -> FlowMap:
  """Use the network everywhere but at t <= s, where the point stays.

  Not differentiable in t there: for discrete-time losses only.

  Example:
    >>> net = lambda xt, t, s, cond: 0 * xt
    >>> t, s = jnp.array([1.0, 0.5]), jnp.array([0.5, 0.5])
    >>> hard_boundary(net)(jnp.ones((2, 1)), t, s, None).tolist()
    [[0.0], [1.0]]
  """

  def flow_map(xt, t, s, cond):
    return jnp.where(over(t <= s, xt), xt, model_fn(xt, t, s, cond))

  return flow_map


def free(model_fn: ModelFn) -> FlowMap:
  """Use the network as it is; the boundary must come from a boundary loss.

  Example:
    >>> net = lambda xt, t, s, cond: 0 * xt
    >>> t = jnp.array([1.0])
    >>> free(net)(jnp.ones((1, 1)), t, t, None).tolist()
    [[0.0]]
  """
  return model_fn
