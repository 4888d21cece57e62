"""The velocity that a loss regresses: a sample's, a guided one or a teacher's.

Guidance is trained in, with the network itself and no gradient, where t lies in
an interval; on label-dropped rows v_g = v:

  v_g = omega v + kappa F_y(xt, t, t) + (1 - omega - kappa) F_0(xt, t, t) (1)

The effective scale is w = omega / (1 - kappa). It may fall to 1 where t exceeds
a time t0:

  omega(t) = (1 - kappa) (1 + q (w - 1)),
  q = 1 - exp(-r / (40 (1 - r))),   r = (1 - t) / (1 - t0)                (2)

On flow rows (s = t) F_y(xt, t, t) is the output that the loss itself needs. So
only interval rows pay for a forward with label, which shares one batch with the
null forward of all rows.

References:
  Geng et al. 2025 (arXiv:2505.13447), section 4.2 and appendix A for eq. (1);
  SoFlow (arXiv:2512.15657, official code) for eq. (2), whose mix ratio is
  1 - kappa.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxflow import guidance, rows
from jaxflow.paths import expand
from jaxflow.types import Array, ModelFn, PyTree, Teacher

# The velocity of a row that lost its label: the sample's, or the teacher's.
DroppedRows = Literal["sample", "teacher"]


def check(
  cond: PyTree,
  null_cond: PyTree,
  teacher: Teacher | None,
  *,
  omega: float,
  kappa: float,
) -> None:
  """Raise ValueError if guidance has no labels, or a teacher besides."""
  if (omega, kappa) == (1.0, 0.0):
    return
  if cond is None or null_cond is None:
    raise ValueError(
      f"omega={omega}, kappa={kappa} guide by labels: give labels in `cond` "
      "and null_cond, or set omega=1, kappa=0"
    )
  if teacher is not None:
    raise ValueError(
      f"omega={omega}, kappa={kappa}: a teacher is guided itself; set omega=1, "
      "kappa=0 and guide the teacher"
    )


def targets(
  model_fn: ModelFn,
  v: Array,
  points: tuple[Array, Array, PyTree],
  *,
  block: rows.Block,
  omega: float,
  kappa: float,
  interval: tuple[float, float],
  decay_start: float = 1.0,
  null_cond: PyTree = None,
  teacher: Teacher | None = None,
  dropped_rows: DroppedRows = "sample",
) -> tuple[Array, Callable[[Array], Array]]:
  """Return v_g of the interval rows and, by the output, of the flow rows.

  Neither has a gradient, eq. (1) and (2).

  Args:
    model_fn: The network that guides, at s = t.
    v: Velocities of the samples, `[B, ...]`.
    points: xt, t and the condition of all rows.
    block: Which rows are interval rows.
    omega: Guidance weight of v.
    kappa: Guidance weight of the network's velocity with label.
    interval: Smallest and largest t that is guided.
    decay_start: t0 of eq. (2); 1 is no decay.
    null_cond: The null condition.
    teacher: Its velocity takes the place of v_g; it excludes guidance.
    dropped_rows: What v_g is on rows without label: v, or the teacher's.

  Returns:
    v_g `[B k / m, ...]`, and a function that returns v_g of the flow rows,
    `[B (m - k) / m, ...]`, of the network's output on them.
  """
  xt, t, cond = points
  guided = teacher is None and (omega, kappa) != (1.0, 0.0)
  labelled, other = None, v
  if teacher is not None:
    other = teacher(xt, t, t, cond)
  elif guided:
    labelled, other = _outputs(
      model_fn, points, block, null_cond, both=kappa != 0
    )
  sees_all = not guided and (teacher is None or dropped_rows == "teacher")

  def of_rows(part: tuple, labelled: Any) -> Array:
    v, other, t, cond = part
    v_g = other
    if guided:
      weight = _decayed(v, t, omega, kappa, decay_start)
      v_g = weight * v + (1 - weight - kappa) * other
      if kappa:
        v_g = v_g + kappa * labelled
      inside = guidance.inside_interval(t, *interval)
      v_g = jnp.where(expand(inside, v), v_g, v)
    if not sees_all and null_cond is not None and cond is not None:
      has_label = guidance.is_labelled(guidance.labels(cond), null_cond)
      v_g = jnp.where(expand(has_label, v), v_g, v)
    # The target is a constant: a gradient through it would double the cost and
    # minimise another objective.
    return jax.lax.stop_gradient(v_g)

  first, rest = rows.split((v, other, t, cond), block)
  # On flow rows F_y is their own forward.
  return of_rows(first, labelled), lambda u_f: of_rows(rest, u_f)


def _outputs(
  model_fn: ModelFn,
  points: tuple[Array, Array, PyTree],
  block: rows.Block,
  null_cond: PyTree,
  *,
  both: bool,
) -> tuple[Array | None, Array]:
  """Return F_y of the interval rows, if asked for, and F_0 of all rows."""
  xt, t, cond = points
  unlabelled = xt, t, t, guidance.null(cond, null_cond)
  if not both:
    return None, model_fn(*unlabelled)
  m, k = block
  (xt_i, t_i, cond_i), _ = rows.split(points, block)
  return rows.side_by_side(
    model_fn, (xt_i, t_i, t_i, cond_i), unlabelled, (m + k, k)
  )


def _decayed(
  x: Array, t: Array, omega: float, kappa: float, start: float
) -> Array | float:
  """Return omega of eq. (2), a number where it does not decay."""
  if start >= 1:
    return omega
  r = jnp.clip((1 - t) / (1 - start), 0, 1 - 1e-6)
  q = jnp.where(t <= start, 1, 1 - jnp.exp(-r / (40 * (1 - r))))
  least = 1 - kappa
  return expand(least + q * (omega - least), x)
