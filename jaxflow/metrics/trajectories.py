r"""Straightness of a velocity's trajectories, and truncation errors of steps.

A trajectory x(t) of `dx/dt = v(x, t)` from noise (t_max) to data (t_min), with
T = t_max - t_min and its mean velocity u = (x(t_max) - x(t_min)) / T, has

  straightness   1/T integral of |u - v(x(t), t)|^2 dt                    (1)
  curvature      (integral of |v(x(t), t)| dt) / |x(t_max) - x(t_min)| - 1 (2)

(1) is 0 if one Euler step is exact. For T = 1 it is the straightness of Liu et
al., in squared units of data; it depends on the path's clock. (2) is the
arc-chord ratio less 1: it is 0 for a line that never turns back, and does not
depend on the clock. Both are computed on a grid of times to second order: (1)
by the trapezoidal rule, (2) from the distances between neighbouring points.

  truncation     |step(x(t), t, s) - x(s)|                                (3)

is the error of one solver step from the true point.

References:
  Liu, Gong, Liu 2022 (arXiv:2209.03003), their S(Z), for (1); Bullitt et al.,
  Measuring tortuosity of the intracerebral vasculature from MRA images, 2003,
  for (2); Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I,
  II.3 for (3).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.errors import RunError, UsageError
from jaxflow.metrics.batches import as_argument, check_rows, in_batches
from jaxflow.metrics.estimates import Estimate, mean_of
from jaxflow.solvers import Solver, euler, heun
from jaxflow.types import Array, ModelFn, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trajectories:
  """Numbers of N trajectories.

  Attributes:
    straightness: eq. (1), [N].
    curvature: eq. (2), [N].
    truncation: eq. (3) for each step from noise to data, [steps, N].
  """

  straightness: NDArray[np.float64]
  curvature: NDArray[np.float64]
  truncation: NDArray[np.float64]

  def estimates(self) -> dict[str, Estimate]:
    """Return means over trajectories, and for truncation also over steps."""
    return {
      "straightness": mean_of(self.straightness),
      "curvature": mean_of(self.curvature),
      "truncation": mean_of(self.truncation.mean(axis=0)),
    }


def trajectories(
  velocity_fn: ModelFn,
  noise: ArrayLike,
  *,
  times: ArrayLike,
  solver: Solver = euler,
  substeps: int = 8,
  batch_size: int = 256,
  cond: PyTree = None,
) -> Trajectories:
  """Measure the trajectories of a velocity, and a solver's steps along them.

  The reference trajectory takes `substeps` Heun steps between two times. Its
  error falls with the square of `substeps`.

  Args:
    velocity_fn: A velocity network, called with s = t. The parameters of a
      `jax.tree_util.Partial` become arguments of the compiled program, those of
      another callable become constants.
    noise: Points at the first time, `[N, ...]`: `paths.start` of unit noise.
    times: Decreasing times, `[steps + 1]`, between which `solver` steps.
    solver: One ODE step, whose truncation is measured.
    substeps: Heun steps between two times, at least 1.
    batch_size: Number of trajectories at a time.
    cond: The condition of each point, arrays `[N, ...]`, or None.

  Raises:
    UsageError: An argument is out of range, or times do not decrease.
    RunError: A trajectory is not finite, or ends where it began.

  Example:
    >>> def turn(x, t, s, cond):
    ...   return 6.2832 * x[:, ::-1] * jnp.array([[-1.0, 1.0]])
    >>> half = trajectories(
    ...   turn, np.ones((2, 2)), times=np.linspace(0.5, 0, 9), substeps=32
    ... )
    >>> round(half.estimates()["curvature"].value, 2)  # pi / 2 - 1
    0.57
  """
  points = np.asarray(noise)
  grid = np.asarray(times, np.float64)
  check_rows(
    "noise", points, "points", substeps=substeps, batch_size=batch_size
  )
  if len(grid) < 2 or (np.diff(grid) >= 0).any():
    raise UsageError(f"times {grid.tolist()}: give two or more that decrease")
  parts = np.linspace(0, 1, substeps + 1)
  fine = grid[:-1, None] * (1 - parts) + grid[1:, None] * parts

  def compute(_, x: Array, label: PyTree) -> tuple[Array, Array, Array]:
    some = jnp.asarray(fine, x.dtype)
    return _follow(as_argument(velocity_fn), x, some, label, solver=solver)

  straightness, curvature, truncation = in_batches(
    compute, points, cond, batch_size
  )
  if broken := np.count_nonzero(~np.isfinite(straightness + curvature)):
    raise RunError(
      f"{broken} of {len(points)} trajectories are not finite, or end where "
      "they began"
    )
  return Trajectories(
    straightness=straightness, curvature=curvature, truncation=truncation
  )


@functools.partial(jax.jit, static_argnames=("solver",))
def _follow(
  velocity_fn: ModelFn, x: Array, times: Array, cond: PyTree, *, solver: Solver
) -> tuple[Array, Array, Array]:
  """Compute eqs. (1) and (2), `[B]`, and (3), `[steps, B]`.

  The times `[steps, substeps + 1]` divide every step into equal parts.
  """
  rows = len(x)

  def velocity(point: Array, t: Array) -> Array:
    return velocity_fn(point, t, t, cond)

  def fine(carry, pair):
    point, length, moved, energy = carry
    now, later = (jnp.broadcast_to(t, (rows,)) for t in pair)
    after = heun(velocity, point, now, later)
    gap = now[0] - later[0]
    # By the trapezoidal rule: integrals of v and of |v|^2.
    first, second = velocity(point, now), velocity(after, later)
    carry = (
      after,
      length + jnp.sqrt(_squared(after - point)),
      moved + gap * (first + second) / 2,
      energy + gap * (_squared(first) + _squared(second)) / 2,
    )
    return carry, None

  def step(carry, part):
    point = carry[0]
    now, later = (jnp.broadcast_to(t, (rows,)) for t in (part[0], part[-1]))
    guess = solver(velocity, point, now, later)
    carry, _ = jax.lax.scan(fine, carry, (part[:-1], part[1:]))
    return carry, jnp.sqrt(_squared(guess - carry[0]))

  zero = jnp.zeros_like(x, shape=(rows,))
  carry, truncation = jax.lax.scan(
    step, (x, zero, jnp.zeros_like(x), zero), times
  )
  end, length, moved, energy = carry
  total = times[0, 0] - times[-1, -1]
  chord = x - end
  # 1/T integral |u - v|^2 = |u|^2 - 2 u . integral v / T + integral |v|^2 / T.
  product = (chord * moved).reshape(rows, -1).sum(axis=1)
  straightness = (_squared(chord) - 2 * product) / total**2 + energy / total
  return straightness, length / jnp.sqrt(_squared(chord)) - 1, truncation


def _squared(x: Array) -> Array:
  """Return squared norms, `[B, ...] -> [B]`."""
  return jnp.square(x).reshape(len(x), -1).sum(axis=1)
