"""Flow maps along velocities: jumps of an average velocity, steps of an ODE.

References:
  Geng et al. 2025 (arXiv:2505.13447), eq. 12 for the average velocity; Frans et
  al. 2024 (arXiv:2410.12557) for its halved steps; Song et al. 2020
  (arXiv:2010.02502), eq. 12 for DDIM.
"""

from collections.abc import Callable
from typing import Annotated

from jaxflow import guidance, predictions, solvers
from jaxflow.options import Amount, GuidanceInput, Predicts, Sampling
from jaxflow.paths import Path, expand
from jaxflow.times import dyadic
from jaxflow.types import Array, FlowMap, ModelFn

Velocity = Annotated[ModelFn, Predicts("velocity")]
Scale = Annotated[Amount, GuidanceInput()]
Time = Annotated[float, Sampling()]


def average_velocity(model_fn: Velocity) -> FlowMap:
  """Jump along the average velocity: `xs = xt - (t - s) F(xt, t, s)`.

  This is the flow map of MeanFlow and shortcut models. On the linear path with
  s = t_min it is that of consistency models.

  Example:
    >>> import jax.numpy as jnp
    >>> net = lambda xt, t, s, cond: xt
    >>> t, s = jnp.array([1.0]), jnp.array([0.0])
    >>> average_velocity(net)(jnp.array([[1.0]]), t, s, None).tolist()
    [[0.0]]
  """

  def flow_map(xt, t, s, cond):
    return xt - expand(t - s, xt) * model_fn(xt, t, s, cond)

  return flow_map


def dyadic_velocity(model_fn: Velocity, *, num_steps: int = 128) -> FlowMap:
  """Jump along an average velocity that was trained on halved steps.

  Steps of at most `1 / num_steps` use the velocity at s = t. Sample with equal
  steps whose number is a power of two: only these gaps were trained.

  Example:
    >>> import jax.numpy as jnp
    >>> net = lambda xt, t, s, cond: expand(t - s, xt) * xt
    >>> t, s = jnp.array([1.0, 1.0]), jnp.array([0.75, 0.5])
    >>> jump = dyadic_velocity(net, num_steps=4)
    >>> jump(jnp.ones((2, 1)), t, s, None).tolist()
    [[1.0], [0.75]]
  """
  return average_velocity(dyadic.on_diagonal(model_fn, num_steps))


def guided_velocity(
  model_fn: Callable[..., tuple[Array, ...]],
  *,
  omega: Scale = 1.0,
  t_start: Time = 0.0,
  t_end: Time = 1.0,
) -> FlowMap:
  """Jump along the first head of a network that has guidance as an input.

  Args:
    model_fn: `(xt, t, s, cond) -> (average velocity, ...)`; its `cond` is that
      of `guidance.inputs`.
    omega: Guidance scale; 1 is none.
    t_start: Start of the guidance interval.
    t_end: End of the guidance interval.

  Returns:
    A flow map, whose condition is labels or None.

  Example:
    >>> import jax.numpy as jnp
    >>> net = lambda xt, t, s, cond: (expand(cond["omega"], xt) * xt, xt)
    >>> t, s = jnp.array([1.0]), jnp.array([0.5])
    >>> jump = guided_velocity(net, omega=2.0)
    >>> jump(jnp.array([[3.0]]), t, s, None).tolist()
    [[0.0]]
  """
  guided = guidance.fix_guidance(
    model_fn, omega=omega, t_start=t_start, t_end=t_end
  )
  return average_velocity(lambda xt, t, s, cond: guided(xt, t, s, cond)[0])


def ode_step(
  model_fn: Velocity, *, solver: solvers.Solver = solvers.euler
) -> FlowMap:
  """Take one solver step along the velocity that the network predicts.

  Example:
    >>> import jax.numpy as jnp
    >>> net = lambda xt, t, s, cond: xt
    >>> t, s = jnp.array([1.0]), jnp.array([0.5])
    >>> ode_step(net)(jnp.array([[1.0]]), t, s, None).tolist()
    [[0.5]]
  """

  def flow_map(xt, t, s, cond):
    return solvers.step(solver, model_fn, xt, t, s, cond)

  return flow_map


def guided_step(
  model_fn: ModelFn,
  *,
  omega: Scale = 1.0,
  solver: solvers.Solver = solvers.euler,
) -> FlowMap:
  """Take a solver step along a velocity that has guidance as an input.

  The network's `cond` is that of `guidance.inputs`; the condition of the flow
  map is labels or None.

  Example:
    >>> import jax.numpy as jnp
    >>> net = lambda xt, t, s, cond: expand(cond["omega"], xt) * xt
    >>> t, s = jnp.array([1.0]), jnp.array([0.5])
    >>> guided_step(net, omega=2.0)(jnp.array([[3.0]]), t, s, None).tolist()
    [[0.0]]
  """
  return ode_step(guidance.fix_guidance(model_fn, omega=omega), solver=solver)


def ddim_step(model_fn: Velocity, *, path: Path) -> FlowMap:
  """Take one step that is exact for a constant denoiser (DDIM).

  `xs = alpha_s D + sigma_s / sigma_t (xt - alpha_t D)`, with D the denoiser. On
  the linear and the variance-exploding path it is an Euler step.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxflow.paths import Linear
    >>> net = lambda xt, t, s, cond: xt
    >>> t, s = jnp.array([1.0]), jnp.array([0.5])
    >>> step = ddim_step(net, path=Linear())
    >>> step(jnp.array([[1.0]]), t, s, None).tolist()
    [[0.5]]
  """
  denoiser = predictions.as_prediction(
    model_fn, path, source="velocity", target="data"
  )

  def flow_map(xt, t, s, cond):
    data = denoiser(xt, t, t, cond)
    ratio = path.sigma(s) / path.sigma(t)
    scale = path.alpha(s) - ratio * path.alpha(t)
    return expand(ratio, xt) * xt + expand(scale, xt) * data

  return flow_map
