"""One step of the probability-flow ODE `dx/dt = velocity(x, t)`, from t to s.

A solver takes one step along a velocity, which is a function. It accepts a
sample (x `[...]`, t and s scalars) or a batch (x `[B, ...]`, t and s `[B]`).
`jax.vmap` over the first form equals the second.

References:
  Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, II.1.
"""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from jaxflow.paths import expand
from jaxflow.types import Array, ModelFn, PyTree

__all__ = [
  "EVALUATIONS",
  "Solver",
  "Velocity",
  "count_evaluations",
  "euler",
  "heun",
  "midpoint",
  "step",
]

# Network calls of one step.
EVALUATIONS = {"euler": 1, "midpoint": 2, "heun": 2}

Velocity = Callable[[Array, Array], Array]


class Solver(Protocol):
  """One step from t to s."""

  def __call__(
    self, velocity: Velocity, xt: Array, t: Array, s: Array
  ) -> Array:
    """Return the point at s."""
    ...


def euler(velocity: Velocity, xt: Array, t: Array, s: Array) -> Array:
  """Take one Euler step: order 1, one evaluation.

  Args:
    velocity: `(x, t) -> dx/dt`.
    xt: The point at t, `[...]` or `[B, ...]`.
    t: Present time, scalar or `[B]`.
    s: Target time, like t; smaller towards data.

  Example:
    >>> import jax.numpy as jnp
    >>> t, s = jnp.array(1.0), jnp.array(0.5)
    >>> euler(lambda x, t: x, jnp.array([1.0]), t, s).tolist()
    [0.5]
  """
  return xt + expand(s - t, xt) * velocity(xt, t)


def midpoint(velocity: Velocity, xt: Array, t: Array, s: Array) -> Array:
  """Take one midpoint step: order 2, two evaluations. Arguments as `euler`.

  Example:
    >>> import jax.numpy as jnp
    >>> t, s = jnp.array(1.0), jnp.array(0.5)
    >>> midpoint(lambda x, t: x, jnp.array([1.0]), t, s).tolist()
    [0.625]
  """
  middle = euler(velocity, xt, t, (t + s) / 2)
  return xt + expand(s - t, xt) * velocity(middle, (t + s) / 2)


def heun(velocity: Velocity, xt: Array, t: Array, s: Array) -> Array:
  """Take one Heun step: order 2, two evaluations. Arguments as `euler`.

  It evaluates the velocity at s, so the velocity must not be singular there.

  Example:
    >>> import jax.numpy as jnp
    >>> t, s = jnp.array(1.0), jnp.array(0.5)
    >>> heun(lambda x, t: x, jnp.array([1.0]), t, s).tolist()
    [0.625]
  """
  first = velocity(xt, t)
  second = velocity(xt + expand(s - t, xt) * first, s)
  return xt + expand((s - t) / 2, xt) * (first + second)


def count_evaluations(solver: Solver) -> int:
  """Return the network calls of one step, counted where Python makes them.

  Calls inside a loop of JAX count once.

  Example:
    >>> count_evaluations(euler), count_evaluations(heun)
    (1, 2)
  """
  calls = []

  def velocity(x: Array, t: Array) -> Array:
    calls.append(t)
    return x

  point, time = jnp.zeros((1, 1)), jnp.ones(1)
  jax.eval_shape(lambda x, t: solver(velocity, x, t, t / 2), point, time)
  return len(calls)


def step(
  solver: Solver, model_fn: ModelFn, xt: Array, t: Array, s: Array, cond: PyTree
) -> Array:
  """Step points `[B, ...]` from t to s, `[B]`, along a network's velocity.

  Args:
    solver: `euler`, `midpoint` or `heun`.
    model_fn: A network that predicts the velocity at s == t.
    xt: Points at t.
    t: Times.
    s: Target times.
    cond: The condition, or None.

  Example:
    >>> import jax.numpy as jnp
    >>> net = lambda xt, t, s, cond: xt
    >>> t, s = jnp.array([1.0]), jnp.array([0.5])
    >>> step(euler, net, jnp.array([[1.0]]), t, s, None).tolist()
    [[0.5]]
  """
  return solver(lambda x, time: model_fn(x, time, time, cond), xt, t, s)
