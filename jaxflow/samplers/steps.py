"""What samplers share: the loop over steps and the noise of a step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxflow.types import Array, ModelFn, PyTree


def scan(step: Callable[[Any, Any], tuple[Any, None]], carry: Any, xs: PyTree):
  """Carry a state through steps; a single one without a loop.

  Args:
    step: `(carry, x) -> (carry, None)`.
    carry: The state, a pytree.
    xs: What each step is given, leaves `[n, ...]`, n >= 1.

  Returns:
    The last state.

  Example:
    >>> scan(lambda c, x: (c + x, None), jnp.array(0), jnp.arange(4)).tolist()
    6
  """
  if len(jax.tree.leaves(xs)[0]) == 1:
    return step(carry, jax.tree.map(lambda x: x[0], xs))[0]
  return jax.lax.scan(step, carry, xs)[0]


def step_noise_of(
  key: Array, step_noise: Array | None, like: Array
) -> Callable[[Array], Array]:
  """Return what gives the unit noise of step i, of the shape of `like`.

  The noise of a step depends on the key and on its index alone.

  Args:
    key: Random key.
    step_noise: Noise `[n, B, ...]` to use instead, or None.
    like: Samples `[B, ...]`.

  Returns:
    `i -> noise [B, ...]`.

  Example:
    >>> given = step_noise_of(jax.random.key(0), jnp.ones((2, 1)), jnp.ones(1))
    >>> given(1).tolist()
    [1.0]
  """
  if step_noise is not None:
    return lambda i: step_noise[i]

  def draw(i):
    return jax.random.normal(jax.random.fold_in(key, i), like.shape, like.dtype)

  return draw


def denoise(denoiser: ModelFn, x: Array, t: Array, cond: PyTree) -> Array:
  """Predict data for a batch `[B, ...]` at one time t.

  Example:
    >>> half = lambda xt, t, s, cond: xt / 2
    >>> denoise(half, jnp.ones((1, 1)), jnp.array(1.0), None).tolist()
    [[0.5]]
  """
  rows = jnp.broadcast_to(t, x.shape[:1])
  return denoiser(x, rows, rows, cond)
