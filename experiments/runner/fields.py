"""What velocities do along their own trajectories, for all seeds at once.

A field is a velocity `(xt, t, s, cond)` of every seed: a pytree whose leaves
have a leading axis of seeds, or no leaves where all seeds share it.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxflow import solvers
from jaxflow.types import Array, ModelFn


def joined(velocities: Sequence[ModelFn]) -> ModelFn:
  """Make one field of the velocities of `Fits.velocities`."""
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *velocities)


@jax.jit
def follow(field: ModelFn, start: Array, times: Array) -> Array:
  """Solve the ODE with Heun's method and return what it passes.

  Args:
    field: Velocities of S seeds.
    start: Points at the first time, [S, N, ...].
    times: Decreasing, [n + 1, m + 1]: m steps from each kept time to the next;
      the last of a row is the first of the next.

  Returns:
    Points [S, n + 1, N, ...] at the first time of each row, and at the end.
  """

  def one(velocity, x):
    def fine(x, pair):
      t, s = (jnp.broadcast_to(time, x.shape[:1]) for time in pair)
      return solvers.step(solvers.heun, velocity, x, t, s, None), None

    def coarse(x, part):
      return jax.lax.scan(fine, x, (part[:-1], part[1:]))[0], x

    end, passed = jax.lax.scan(coarse, x, times)
    return jnp.concatenate([passed, end[None]])

  return jax.vmap(one)(field, start)


def refined(times: Array, parts: int) -> Array:
  """Divide each step into equal parts, [n + 1] -> [n, parts + 1]."""
  share = jnp.linspace(0, 1, parts + 1)[None]
  return times[:-1, None] * (1 - share) + times[1:, None] * share


@jax.jit
def steepness(field: ModelFn, points: Array, times: Array) -> Array:
  """Return the largest singular value of the Jacobian dv/dx.

  Args:
    field: Velocities of S seeds.
    points: [S, n, N, D].
    times: [n].

  Returns:
    Per unit of time, [S, n, N].
  """

  def at(velocity, x, t):
    def alone(y):
      return velocity(y[None], t[None], t[None], None)[0]

    return jnp.linalg.norm(jax.jacfwd(alone)(x), ord=2)

  return _everywhere(at, field, points, times)


@jax.jit
def acceleration(field: ModelFn, points: Array, times: Array) -> Array:
  """Return |x''| of the trajectories through points: |dv/dt + (dv/dx) v|.

  Args:
    field: Velocities of S seeds.
    points: [S, n, N, D].
    times: [n].

  Returns:
    [S, n, N].
  """

  def at(velocity, x, t):
    def alone(y, time):
      return velocity(y[None], time[None], time[None], None)[0]

    v = alone(x, t)
    return jnp.linalg.norm(jax.jvp(alone, (x, t), (v, jnp.ones_like(t)))[1])

  return _everywhere(at, field, points, times)


def _everywhere(at, field, points, times):
  """Map `(velocity, point, time)` over seeds, times and points."""
  rows = jax.vmap(at, in_axes=(None, 0, None))
  grid = jax.vmap(rows, in_axes=(None, 0, 0))
  return jax.vmap(grid, in_axes=(0, 0, None))(field, points, times)
