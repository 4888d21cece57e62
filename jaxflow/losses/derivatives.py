"""Derivatives of a network along the flow: exact, or by finite differences.

Along the direction v of xt, with `s` held, the total derivative is

  du = v . dF/dxt + dF/dt                                                 (1)

A JVP gives it exactly. Differences need no forward-mode derivative, so that the
network may hold a kernel without one, and cost two forwards without a gradient:

  central    du = [F(xt + h v, t + h) - F(xt - h v, t - h)] / (2 h)       (2)
  one_sided  (2) with the half that leaves [t_min, t_max], or passes s,
             replaced by F(xt, t) and without its h; 0 where both do      (3)
  relative   (2) with h t in place of h, for times over decades           (4)

The error of (2) is of order h^2, that of a single half of order h. Points and
difference are float32 or better, whatever the network computes in. A network in
bfloat16 needs a larger h: its rounding is divided by h.

References:
  Official code of TiM, MF-RAE and AnyFlow for (2), of FastGen (NVlabs) for (3).
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxflow import rows
from jaxflow.losses.row_jvp import jvp_of_rows
from jaxflow.paths import Path, expand
from jaxflow.types import Array, PyTree

Derivative = Literal["jvp", "central", "one_sided", "relative"]


def check(derivative: str) -> None:
  """Raise ValueError unless there is such a derivative."""
  if derivative not in get_args(Derivative):
    raise ValueError(
      f"derivative={derivative!r}: use jvp, central, one_sided or relative"
    )


def along_flow(
  function: Callable[[Array, Array], Any],
  xt: Array,
  t: Array,
  v: Array,
  *,
  path: Path,
  s: Array | None = None,
  rate: Array | None = None,
  derivative: Derivative = "jvp",
  step: float = 0.005,
  has_aux: bool = False,
) -> tuple[Any, ...]:
  """Return a function of (xt, t) and its derivative along (v, 1), eq. (1).

  Args:
    function: `(xt [B, ...], t [B]) -> u [B, ...]`, or `(u, auxiliary)`.
    xt: Where to differentiate, `[B, ...]`.
    t: Times `[B]`.
    v: Direction of xt, `[B, ...]`.
    path: Its t_min and t_max are the ends of times for "one_sided".
    s: Times `[B]` that "one_sided" does not pass; default: t_min.
    rate: Factor of the derivative, `[B]`; default: 1.
    derivative: "jvp", "central", "one_sided" or "relative".
    step: h, in units of t; of "relative" a share of t.
    has_aux: Whether the function returns a pair.

  Returns:
    `(u, du)`, or `(u, du, auxiliary)`. No gradient passes a difference; one
    passes the du of a JVP unless the caller stops it.

  Example:
    >>> from jaxflow import paths
    >>> x, t = jnp.array([[3.0]]), jnp.array([0.5])
    >>> f = lambda x, t: x * t[:, None]
    >>> u, du = along_flow(f, x, t, 2 * x, path=paths.Linear())
    >>> u.tolist(), du.tolist()
    ([[1.5]], [[6.0]])
  """
  check(derivative)
  if derivative == "jvp":
    rate = jnp.ones_like(t) if rate is None else rate
    u, du, *aux = jax.jvp(
      function,
      (xt, t),
      ((expand(rate, v) * v).astype(xt.dtype), rate.astype(t.dtype)),
      has_aux=has_aux,
    )
    return u, du, *aux

  u, aux = function(xt, t) if has_aux else (function(xt, t), None)
  wide = jnp.promote_types(xt.dtype, jnp.float32)
  point, v = (jax.lax.stop_gradient(x).astype(wide) for x in (xt, v))
  time = jax.lax.stop_gradient(t).astype(wide)
  up = down = jnp.full_like(time, step)
  if derivative == "relative":
    up = down = step * time
  elif derivative == "one_sided":
    # A step past s leaves the triangle of times that the network knows.
    floor = path.t_min if s is None else s
    fits_down = (time - step >= path.t_min) & (time - step > floor)
    down = jnp.where(fits_down, step, 0)
    up = jnp.where(time + step <= path.t_max, step, 0)

  def at(h):
    value = function(point + expand(h, v) * v, time + h)
    value = value[0] if has_aux else value
    return jax.lax.stop_gradient(value).astype(wide)

  length = up + down
  # Where no half fits, both calls are at the point itself: 0 / 1.
  length = jnp.where(length == 0, 1, length)
  du = (at(up) - at(-down)) / expand(length, v)
  if rate is not None:
    du = expand(rate, du) * du
  du = du.astype(jnp.result_type(u))
  return (u, du, aux) if has_aux else (u, du)


def along_flow_of_rows(
  model_fn: Callable[..., Any],
  points: tuple[Array, Array, Array, PyTree],
  v: Array,
  *,
  block: rows.Block,
  path: Path,
  derivative: Derivative = "jvp",
  step: float = 0.005,
) -> tuple[Any, Array]:
  """Return a network's output, and its derivative on interval rows, eq. (1).

  A JVP takes one call of the network, where that may be; see `row_jvp`. With
  differences interval rows are a call of their own, so that all their calls
  drop the same units of a network with dropout.

  Args:
    model_fn: The network, a `JumpFn`; of several outputs the first is derived.
    points: xt, t, s and the condition of all rows; s = t on flow rows.
    v: Direction of xt on interval rows, `[B k / m, ...]`.
    block: Which rows are interval rows.
    path: As of `along_flow`.
    derivative: As of `along_flow`; "one_sided" does not pass s.
    step: As of `along_flow`.

  Returns:
    `(u [B, ...], du [B k / m, ...])`. No gradient passes du.

  Example:
    >>> from jaxflow import paths
    >>> x, t = jnp.array([[3.0], [4.0]]), jnp.array([0.5, 0.5])
    >>> f = lambda xt, t, s, cond: xt * t[:, None]
    >>> u, du = along_flow_of_rows(
    ...     f, (x, t, t, None), 2 * x[:1], block=(2, 1), path=paths.Linear())
    >>> u.tolist(), du.tolist()
    ([[1.5], [2.0]], [[6.0]])
  """
  check(derivative)
  interval, flow = rows.split(points, block)
  xt, t, s, cond = interval
  if derivative == "jvp":
    directions = v.astype(xt.dtype), jnp.ones_like(t)
    u, du = jvp_of_rows(model_fn, points, directions, block)
    return u, jax.tree.leaves(du)[0]

  def first(xt, t):
    u = model_fn(xt, t, s, cond)
    return jax.tree.leaves(u)[0], u

  _, du, u = along_flow(
    first,
    *(xt, t, v),
    path=path,
    s=s,
    derivative=derivative,
    step=step,
    has_aux=True,
  )
  if block[0] == block[1]:
    return u, du
  return rows.merge(u, model_fn(*flow), block), du
