"""Flow maps along velocities: average velocities, steps of an ODE, circles.

References:
  Geng et al. 2025 (arXiv:2505.13447), eq. 12 for the average velocity; Frans et
  al. 2024 (arXiv:2410.12557) for its halved steps; Song et al. 2020
  (arXiv:2010.02502), eq. 12 for DDIM; Lu, Song 2024 (arXiv:2410.11081), section
  3 for the trigonometric jump; Zhou et al. 2025 (arXiv:2503.07565) for the
  rotation and the identity; Zhou et al. 2025 (arXiv:2511.19797) for the scaled
  velocity.
"""

from collections.abc import Callable
from typing import Annotated

import jax.numpy as jnp

from jaxflow import guidance, paths, predictions, solvers
from jaxflow.options import (
  Above,
  Amount,
  Count,
  GuidanceInput,
  Outputs,
  Predicts,
  Sampling,
)
from jaxflow.paths import Path, expand
from jaxflow.times import dyadic
from jaxflow.types import Array, FlowMap, ModelFn

Velocity = Annotated[ModelFn, Predicts("velocity")]
Scale = Annotated[Amount, GuidanceInput()]
Time = Annotated[Amount, Sampling()]


def average_velocity(model_fn: Velocity) -> FlowMap:
  """Jump along the average velocity: `xs = xt - (t - s) F(xt, t, s)`.

  This is the flow map of MeanFlow and shortcut models. On the linear path with
  s = t_min it is that of consistency models.

  Example:
    >>> net = lambda xt, t, s, cond: xt
    >>> t, s = jnp.array([1.0]), jnp.array([0.0])
    >>> average_velocity(net)(jnp.array([[1.0]]), t, s, None).tolist()
    [[0.0]]
  """

  def flow_map(xt, t, s, cond):
    return xt - expand(t - s, xt) * model_fn(xt, t, s, cond)

  return flow_map


def dyadic_velocity(model_fn: Velocity, *, num_steps: Count = 128) -> FlowMap:
  """Jump along an average velocity that was trained on halved steps.

  Steps of at most `1 / num_steps` use the velocity at s = t. Sample with equal
  steps whose number is a power of two: only these gaps were trained.

  Example:
    >>> net = lambda xt, t, s, cond: expand(t - s, xt) * xt
    >>> t, s = jnp.array([1.0, 1.0]), jnp.array([0.75, 0.5])
    >>> jump = dyadic_velocity(net, num_steps=4)
    >>> jump(jnp.ones((2, 1)), t, s, None).tolist()
    [[1.0], [0.75]]
  """
  return average_velocity(dyadic.on_diagonal(model_fn, num_steps))


def guided_velocity(
  model_fn: Annotated[Callable[..., tuple[Array, ...]], Outputs(2)],
  *,
  omega: Scale = 1.0,
  t_start: Time = 0.0,
  t_end: Annotated[Time, Above("t_start")] = 1.0,
) -> FlowMap:
  """Jump along the first head of a network that has guidance as an input.

  The head is an average velocity. `t_start` and `t_end` are the ends of the
  guidance interval.

  Example:
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


def scaled_velocity(
  model_fn: ModelFn, *, omega: Scale = 1.0, scale_output: bool = True
) -> FlowMap:
  """Jump along an average velocity that has guidance as an input.

  The network predicts the average velocity over `omega`, or, without
  `scale_output`, the average velocity itself.

  Example:
    >>> net = lambda xt, t, s, cond: xt / 2
    >>> t, s = jnp.array([1.0]), jnp.array([0.5])
    >>> jump = scaled_velocity(net, omega=2.0)
    >>> jump(jnp.array([[3.0]]), t, s, None).tolist()
    [[1.5]]
  """
  guided = guidance.fix_guidance(model_fn, omega=omega)
  scale = omega if scale_output else 1.0
  return average_velocity(lambda xt, t, s, cond: scale * guided(xt, t, s, cond))


def ode_step(
  model_fn: Velocity, *, solver: solvers.Solver = solvers.euler
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


def guided_step(
  model_fn: ModelFn,
  *,
  omega: Scale = 1.0,
  solver: solvers.Solver = solvers.euler,
) -> FlowMap:
  """Take a solver step along a velocity that has guidance as an input.

  Example:
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
    >>> net = lambda xt, t, s, cond: xt
    >>> t, s = jnp.array([1.0]), jnp.array([0.5])
    >>> step = ddim_step(net, path=paths.Linear())
    >>> step(jnp.array([[1.0]]), t, s, None).tolist()
    [[0.5]]
  """
  denoiser = predictions.as_prediction(
    model_fn, path, source="velocity", target="data"
  )
  return _towards(lambda xt, t, s, cond: denoiser(xt, t, t, cond), path)


def identity(model_fn: ModelFn, *, path: Path) -> FlowMap:
  """Jump towards the data that the network itself predicts, for every s.

  `xs = (alpha_s - alpha_t sigma_s / sigma_t) D + sigma_s / sigma_t xt`, with
  `D = F(xt, t, s) / noise_std`: a network behind `predictions.normalized`,
  which multiplies by `noise_std`, predicts D itself. It cannot start at
  sigma_t = 0.

  Example:
    >>> net = lambda xt, t, s, cond: 0 * xt
    >>> t, s = jnp.array([1.0]), jnp.array([0.5])
    >>> jump = identity(net, path=paths.Linear())
    >>> jump(jnp.array([[1.0]]), t, s, None).tolist()
    [[0.5]]
  """
  unit = paths.noise_std(path)
  return _towards(lambda xt, t, s, cond: model_fn(xt, t, s, cond) / unit, path)


def _towards(data_fn: ModelFn, path: Path) -> FlowMap:
  """Jump as if the data were those of a function, the noise what is left."""

  def flow_map(xt, t, s, cond):
    data = data_fn(xt, t, s, cond)
    ratio = path.sigma(s) / path.sigma(t)
    scale = path.alpha(s) - ratio * path.alpha(t)
    return expand(ratio, xt) * xt + expand(scale, xt) * data

  return flow_map


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
