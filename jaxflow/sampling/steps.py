"""The loop over steps and the noise of a step, shared by all samplers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxflow import paths
from jaxflow.types import Array, ModelFn, PyTree


def scan(
  step: Callable[[Any, Any], tuple[Any, None]], carry: Any, xs: PyTree
) -> Any:
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
  """Return a function of i: the unit noise of step i, shaped as `like`.

  The noise of a step depends on the key and on its index alone; with a key for
  each row, that of a row on its key alone, whatever rows stand beside it.

  Args:
    key: Random key, or one for each row, `[B]`.
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
    return unit_noise(fold_in(key, i), like.shape, like.dtype)

  return draw


def fold_in(key: Array, number: Any) -> Array:
  """Fold a number into a key, or into every one of `[B]` keys.

  Example:
    >>> fold_in(jax.random.split(jax.random.key(0), 3), 1).shape
    (3,)
  """
  if key.ndim == 0:
    return jax.random.fold_in(key, number)
  return jax.vmap(jax.random.fold_in, in_axes=(0, None))(key, number)


def unit_noise(
  key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Array:
  """Draw normal numbers, each row from its own key where there are `[B]` keys.

  Args:
    key: Random key, or one for each row, `[B]`.
    shape: Shape `[B, ...]`.
    dtype: Floating-point type.

  Returns:
    Noise of unit variance.

  Example:
    >>> keys = jax.random.split(jax.random.key(0), 3)
    >>> both, one = (unit_noise(k, (len(k), 2)) for k in (keys, keys[1:2]))
    >>> bool((both[1] == one[0]).all())
    True
  """
  if key.ndim == 0:
    return paths.standard_normal(key, shape, dtype)
  return jax.vmap(lambda k: paths.standard_normal(k, shape[1:], dtype))(key)


def denoise(denoiser: ModelFn, x: Array, t: Array, cond: PyTree) -> Array:
  """Predict data for a batch `[B, ...]` at one time t.

  Example:
    >>> half = lambda xt, t, s, cond: xt / 2
    >>> denoise(half, jnp.ones((1, 1)), jnp.array(1.0), None).tolist()
    [[0.5]]
  """
  rows = jnp.broadcast_to(t, x.shape[:1])
  return denoiser(x, rows, rows, cond)
