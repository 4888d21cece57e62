"""Flow maps: what carries a point from time t to an earlier time s.

Each function here turns a network into a flow map. The consistency skips are
trained only for `s = path.t_min`; at t = s each is the identity by
construction, which is the boundary condition of a consistency model. The EDM
denoiser has it at t = 0.

References:
  Geng et al. 2025 (arXiv:2505.13447), eq. 12 for the average velocity; Frans et
  al. 2024 (arXiv:2410.12557) for its halved steps; Song et al. 2023
  (arXiv:2303.01469), eq. 5 and appendix C for the EDM skip; Lu, Song
  2024 (arXiv:2410.11081), section 3 for the trigonometric jump; Zhou et al.
  2025 (arXiv:2503.07565) for the rotation.
"""

from collections.abc import Callable

import jax.numpy as jnp

from jaxflow import dyadic, guidance, paths, predictions, solvers
from jaxflow.paths import Path, over
from jaxflow.types import Array, FlowMap, ModelFn


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


def dyadic_velocity(model_fn: ModelFn, *, num_steps: int = 128) -> FlowMap:
  """Jump along an average velocity that was trained on halved steps.

  Steps of up to `1 / num_steps` are taken along the velocity, at s = t. Sample
  with a power of two of equal steps, the gaps that were trained.

  Example:
    >>> net = lambda xt, t, s, cond: over(t - s, xt) * xt
    >>> t, s = jnp.array([1.0, 1.0]), jnp.array([0.75, 0.5])
    >>> jump = dyadic_velocity(net, num_steps=4)
    >>> jump(jnp.ones((2, 1)), t, s, None).tolist()
    [[1.0], [0.75]]
  """
  return average_velocity(dyadic.on_diagonal(model_fn, num_steps))


def guided_velocity(
  model_fn: Callable[..., tuple[Array, ...]],
  *,
  omega: float = 1.0,
  t_start: float = 0.0,
  t_end: float = 1.0,
) -> FlowMap:
  """Jump along the first head of a network that has guidance as an input.

  Args:
    model_fn: `(xt, t, s, cond) -> (average velocity, ...)`; its `cond` is a
      dict with `label`, `omega`, `t_start` and `t_end`.
    omega: Guidance scale; 1 is none.
    t_start: Smallest t that is guided.
    t_end: Largest t that is guided.

  Returns:
    A flow map, whose condition is labels or None.

  Example:
    >>> net = lambda xt, t, s, cond: (over(cond["omega"], xt) * xt, xt)
    >>> t, s = jnp.array([1.0]), jnp.array([0.5])
    >>> jump = guided_velocity(net, omega=2.0)
    >>> jump(jnp.array([[3.0]]), t, s, None).tolist()
    [[0.0]]
  """

  def first_head(xt, t, s, cond):
    told = {
      "label": guidance.labels(cond),
      "omega": jnp.full_like(t, omega),
      "t_start": jnp.full_like(t, t_start),
      "t_end": jnp.full_like(t, t_end),
    }
    return model_fn(xt, t, s, told)[0]

  return average_velocity(first_head)


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


def trajectory(model_fn: ModelFn, *, sigma_data: float = 0.5) -> FlowMap:
  """Precondition a raw network as a jump from any t to any s, EDM path.

  `G = (s / t) x + (1 - s / t) g(x, t, s)` with g the preconditioned denoiser
  (`predictions.edm_denoiser`) that sees s too; at s = t it is the identity, and
  g(x, t, t) is trained as the denoiser (Kim et al. 2023, arXiv:2310.02279).

  Args:
    model_fn: The raw network, called as `F(c_in x, ln(t)/4, ln(s)/4, cond)`.
    sigma_data: Standard deviation of the data.

  Returns:
    A flow map of the variance-exploding path, 0 < s <= t.

  Example:
    >>> zero = lambda xt, t, s, cond: 0 * xt
    >>> t, s = jnp.array([1.0]), jnp.array([0.5])
    >>> trajectory(zero, sigma_data=1.0)(jnp.ones((1, 1)), t, s, None).tolist()
    [[0.75]]
  """
  denoiser = predictions.edm_denoiser(model_fn, sigma_data=sigma_data)

  def flow_map(xt, t, s, cond):
    kept = over(s / t, xt)
    return kept * xt + (1 - kept) * denoiser(xt, t, s, cond)

  return flow_map


def edm_denoiser(model_fn: ModelFn, *, sigma_data: float = 0.5) -> FlowMap:
  """Precondition a raw network as a denoiser on the EDM path, whatever s is.

  `predictions.edm_denoiser`, which is the identity at t = 0: there, where
  ln(t) is infinite, the network does not count.

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
    # Selected before the logarithm: behind it, the gradient would be NaN.
    safe = jnp.where(noisy, t, 1)
    return jnp.where(over(noisy, xt), denoiser(xt, safe, safe, cond), xt)

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
    return over(jnp.cos(t - s), xt) * xt - over(jnp.sin(t - s), xt) * value

  return flow_map


def rotation(model_fn: ModelFn, *, path: Path) -> FlowMap:
  """Jump along the circle on which a path scaled to unit variance lies.

  With `sigma` in units of `noise_std` and `q = alpha_t^2 + sigma_t^2`,

    xs = [(alpha_t alpha_s + sigma_t sigma_s) xt
          - (alpha_s sigma_t - alpha_t sigma_s) sqrt(q) F(xt, t, s)] / q,

  on the trigonometric path the jump of `trigonometric`.

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
    return over(keep, xt) * xt - over(turn, xt) * model_fn(xt, t, s, cond)

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
