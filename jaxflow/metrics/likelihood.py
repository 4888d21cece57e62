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

Likelihoods are in nats; those of quantised data also in bits per dimension. The
data x lie on equidistant levels from -1 to 1, with gap = 2 / (levels - 1).
Uniform noise u of one gap makes them continuous (`dequantise`). P(x) is the
model's mass in the cell of x. By Jensen's inequality,

  -log P(x) = -log(gap^D E p(x + u)) <= E[-log p(x + u)] - D log gap,     (4)

so the bits per dimension are at most (nats / D - log gap) / log 2.

References:
  Chen, Rubanova, Bettencourt, Duvenaud 2018, Neural ordinary differential
  equations (arXiv:1806.07366), theorem 1 for (1); Grathwohl et al. 2019, FFJORD
  (arXiv:1810.01367), section 3.1 for (3); Song et al. 2021 (arXiv:2011.13456),
  section 4.3; Theis, van den Oord, Bethge 2016, A note on the evaluation of
  generative models (arXiv:1511.01844), section 3.1 for (4).
"""

import dataclasses
import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.errors import RunError, UsageError
from jaxflow.metrics.batches import as_argument, check_rows, in_batches
from jaxflow.metrics.estimates import Estimate, mean_of
from jaxflow.paths import Path
from jaxflow.solvers import Solver, heun
from jaxflow.types import Array, ModelFn, PyTree

Law = Literal["rademacher", "gaussian", "exact"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Likelihood:
  """Negative log-likelihoods of N samples.

  Attributes:
    nll: negative log-likelihood of each sample in nats, [N].
    size: number of elements D of a sample.
  """

  nll: NDArray[np.float64]
  size: int

  @property
  def mean(self) -> Estimate:
    """The mean in nats; its error is over samples and probes."""
    return mean_of(self.nll)

  def bits_per_dimension(self, levels: int) -> Estimate:
    """Compute the upper bound (4) of the bits per dimension.

    The data have at least 2 levels, 256 for 8 bits.

    Raises:
      UsageError: levels < 2.

    Example:
      >>> # Uniform on [-1, 1] with 2 levels: cells are twice as wide.
      >>> found = Likelihood(nll=np.full(3, math.log(4.0)), size=1)
      >>> round(found.bits_per_dimension(2).value, 6)
      1.0
    """
    gap = _gap(levels)
    return mean_of((self.nll / self.size - math.log(gap)) / math.log(2))


def dequantise(key: Array, data: ArrayLike, levels: int) -> Array:
  """Add noise from U(-gap / 2, gap / 2) to data on levels from -1 to 1.

  The data are [N, ...], with at least 2 levels.

  Raises:
    UsageError: levels < 2.

  Example:
    >>> x = dequantise(jax.random.key(0), jnp.zeros((100, 2)), 3)
    >>> 0.45 < float(jnp.abs(x).max()) <= 0.5
    True
  """
  data = jnp.asarray(data)
  noise = jax.random.uniform(key, data.shape, data.dtype, -0.5, 0.5)
  return data + _gap(levels) * noise


def _gap(levels: int) -> float:
  """Return the distance between neighbouring levels from -1 to 1."""
  if levels < 2:
    raise UsageError(f"levels={levels}: give at least 2")
  return 2 / (levels - 1)


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
    probes: Number of probes a sample.
    batch_size: Number of samples at a time.
    cond: The condition of each sample, arrays `[N, ...]`, or None.

  Raises:
    UsageError: An argument is out of range, or times do not decrease from
      t_max to t_min.
    RunError: A likelihood is not finite.

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
  check_rows("data", rows, "samples", probes=probes, batch_size=batch_size)
  if law not in ("rademacher", "gaussian", "exact"):
    raise UsageError(f"law={law!r}: give rademacher, gaussian or exact")
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
  prior = path.sigma(jnp.asarray(path.t_max))

  def compute(index: NDArray[np.intp], points: Array, label: PyTree) -> Array:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
    return _integrate(
      as_argument(velocity_fn),
      points,
      _probes(law, probes, keys, points),
      jnp.asarray(grid[::-1], points.dtype),
      prior.astype(points.dtype),
      label,
      solver=solver,
      exact=law == "exact",
    )

  nats = in_batches(compute, rows, cond, batch_size)
  if broken := np.count_nonzero(~np.isfinite(nats)):
    raise RunError(f"{broken} of {len(rows)} likelihoods are not finite")
  return Likelihood(nll=nats, size=math.prod(rows.shape[1:]))


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
