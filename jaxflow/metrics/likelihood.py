r"""Likelihood of a velocity: the change of variables along its ODE.

The points of `dx/dt = v(x, t)` change their density by the divergence of v:

  d log p_t(x_t) / dt = -div v(x_t, t),  so, from data (t_min) to noise (t_max),
  log p_t_min(x) = log p_t_max(x_t_max) + integral of div v(x_t, t) dt.    (1)

The integral is one more component of the state, so any ODE solver applies. The
distribution at t_max is the one that sampling starts from:

  p_t_max = N(0, sigma(t_max)^2 I).                                       (2)

So (1) is the exact likelihood of the model's samples at t_min: data if
sigma(t_min) = 0, otherwise data with noise of that standard deviation. If
alpha(t_max) > 0, as in diffusions, the noised data do not follow (2) exactly.

The divergence is the trace of the Jacobian J of v. With probes e whose
covariance is I it is (Hutchinson 1990)

  div v = E e^T J e,                                                      (3)

or exactly the sum of e_i^T J e_i over the unit vectors. A probe costs one
directional derivative. A sample keeps its probes along the whole trajectory.

References:
  Chen, Rubanova, Bettencourt, Duvenaud 2018, Neural ordinary differential
  equations (arXiv:1806.07366), theorem 1 for (1); Grathwohl et al. 2019, FFJORD
  (arXiv:1810.01367), section 3.1 for (3); Song et al. 2021 (arXiv:2011.13456),
  section 4.3.
"""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxflow.errors import RunError, UsageError
from jaxflow.metrics.batches import as_argument, full_batches
from jaxflow.metrics.bits_per_dimension import Likelihood
from jaxflow.paths import Path
from jaxflow.solvers import Solver, heun
from jaxflow.types import Array, ModelFn, PyTree

Law = Literal["rademacher", "gaussian", "exact"]


def negative_log_likelihood(
  velocity_fn: ModelFn,
  data: ArrayLike,
  key: Array,
  *,
  path: Path,
  times: ArrayLike,
  solver: Solver = heun,
  law: Law = "rademacher",
  probes: int = 1,
  batch_size: int = 256,
  cond: PyTree = None,
) -> Likelihood:
  """Compute the negative log-likelihood of every sample, eq. (1).

  Args:
    velocity_fn: A velocity network, called with s = t. The parameters of a
      `jax.tree_util.Partial` become arguments of the compiled program, those of
      another callable become constants.
    data: Points at t_min, `[N, ...]`, finite.
    key: Random key of the probes, independent of the batch size.
    path: Gives the distribution at t_max, eq. (2).
    times: Decreasing times from t_max to t_min, `[steps + 1]`.
    solver: One ODE step, as in `jaxflow.solvers`.
    law: Distribution of the probes, or "exact" for the whole trace, with one
      directional derivative for each element of a sample.
    probes: Number of probes a sample, at least 1.
    batch_size: Number of samples at a time.
    cond: The condition of each sample, arrays `[N, ...]`, or None.

  Returns:
    The likelihoods in the order of the data.

  Raises:
    UsageError: An argument is out of range, or times do not decrease from
      t_max to t_min.
    RunError: A likelihood is not finite.

  References:
    Grathwohl et al. 2019; Song et al. 2021, section 4.3.

  Example:
    >>> from jaxflow.paths import Linear
    >>> still = lambda x, t, s, cond: jnp.zeros_like(x)
    >>> found = negative_log_likelihood(
    ...   still, np.zeros((3, 2)), jax.random.key(0),
    ...   path=Linear(), times=[1.0, 0.0],
    ... )
    >>> round(found.mean.value, 4)  # log(2 pi)
    1.8379
  """
  rows = np.asarray(data)
  grid = np.asarray(times, np.float64)
  _check(rows, grid, path, law, probes, batch_size)
  size = math.prod(rows.shape[1:])
  prior = path.sigma(jnp.asarray(path.t_max))
  found = []
  for index, points, label in full_batches(rows, cond, batch_size):
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    nats = _integrate(
      as_argument(velocity_fn),
      points,
      _probes(law, probes, keys, points),
      jnp.asarray(grid[::-1], points.dtype),
      prior.astype(points.dtype),
      label,
      solver=solver,
      exact=law == "exact",
    )
    found.append(np.asarray(nats, np.float64))
  nats = np.concatenate(found)[: len(rows)]
  broken = np.count_nonzero(~np.isfinite(nats))
  if broken:
    raise RunError(f"{broken} of {len(rows)} likelihoods are not finite")
  return Likelihood(nll=nats, size=size)


@functools.partial(jax.jit, static_argnames=("solver", "exact"))
def _integrate(
  velocity_fn: ModelFn,
  x: Array,
  probes: Array,
  times: Array,
  noise_level: Array,
  cond: PyTree,
  *,
  solver: Solver,
  exact: bool,
) -> Array:
  """Compute eq. (1) for points `[B, ...]` and probes `[P, B, ...]`."""
  shape, rows = x.shape, len(x)

  def augmented(state: Array, t: Array) -> Array:
    point = state[:, :-1].reshape(shape)
    value, push = jax.linearize(lambda z: velocity_fn(z, t, t, cond), point)
    products = probes * jax.vmap(push)(probes)
    traces = products.reshape(len(probes), rows, -1).sum(axis=2)
    trace = traces.sum(axis=0) if exact else traces.mean(axis=0)
    return jnp.concatenate([value.reshape(rows, -1), trace[:, None]], axis=1)

  def step(state: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
    now, later = (jnp.broadcast_to(t, (rows,)) for t in pair)
    return solver(augmented, state, now, later), None

  zero = jnp.zeros_like(x, shape=(rows, 1))
  start = jnp.concatenate([x.reshape(rows, -1), zero], axis=1)
  end, _ = jax.lax.scan(step, start, (times[:-1], times[1:]))
  noise, integral = end[:, :-1] / noise_level, end[:, -1]
  constant = jnp.log(noise_level) + math.log(2 * math.pi) / 2
  log_prior = -(noise**2).sum(axis=1) / 2 - noise.shape[1] * constant
  return -(log_prior + integral)


def _probes(law: Law, num: int, keys: Array, x: Array) -> Array:
  """Draw probes `[P, B, ...]` for points `[B, ...]`, row i by key i."""
  shape = x.shape[1:]
  if law == "exact":
    size = math.prod(shape)
    units = jnp.eye(size, dtype=x.dtype).reshape(size, 1, *shape)
    return jnp.broadcast_to(units, (size, *x.shape))
  draw = jax.random.rademacher if law == "rademacher" else jax.random.normal
  drawn = jax.vmap(lambda key: draw(key, (num, *shape), x.dtype))(keys)
  return drawn.swapaxes(0, 1)


def _check(
  rows: np.ndarray,
  grid: np.ndarray,
  path: Path,
  law: Law,
  probes: int,
  batch_size: int,
) -> None:
  """Raise UsageError if an argument of `negative_log_likelihood` is wrong."""
  if rows.ndim < 2 or not rows.size or not np.isfinite(rows).all():
    raise UsageError(
      f"data of shape {rows.shape}: give finite samples, [N, ...]"
    )
  if law not in ("rademacher", "gaussian", "exact"):
    raise UsageError(f"law={law!r}: give rademacher, gaussian or exact")
  for name, value in (("probes", probes), ("batch_size", batch_size)):
    if value < 1:
      raise UsageError(f"{name}={value}: give at least 1")
  ends = path.t_max, path.t_min
  if (
    len(grid) < 2
    or (np.diff(grid) >= 0).any()
    or not np.allclose((grid[0], grid[-1]), ends, rtol=1e-5, atol=1e-7)
  ):
    raise UsageError(
      f"times from {grid[0]:g} to {grid[-1]:g}: give decreasing ones from "
      f"t_max={ends[0]:g} to t_min={ends[1]:g}"
    )
