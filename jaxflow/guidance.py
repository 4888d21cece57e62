"""Classifier-free guidance and the null condition.

  guided = F_null + scale (F_label - F_null)                              (1)

scale = 1 is the conditional network, 0 the unconditional one; papers that write
`1 + w` mean scale = 1 + w. (1) holds for data, noise, velocity, v and score
alike, because the weights sum to one. A condition is a pytree of arrays
`[B, ...]`; labels `[B]` are the simplest one. The null condition, `null_cond`,
is that of one sample, without the batch axis, and stands for none: the number
of classes for labels, NaN for vectors `[B, K]`, a tree for a tree. Each of its
arrays may be one number for all of an array. A sample whose condition equals
the null condition, NaN being equal to NaN, has none.

References:
  Ho, Salimans 2022 (arXiv:2207.12598), eq. 6; Kynkaanniemi et al. 2024
  (arXiv:2404.07724) for the interval.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow import conditions, rows
from jaxflow.paths import expand
from jaxflow.types import Array, ModelFn, PyTree

__all__ = [
  "classifier_free",
  "drop_labels",
  "fix_guidance",
  "inputs",
  "inside_interval",
  "is_inputs",
  "is_labelled",
  "labels",
  "null",
  "replace_labels",
  "scale_law",
]


def is_inputs(cond: PyTree) -> bool:
  """Return whether a condition is a dict as `inputs` makes it.

  Example:
    >>> is_inputs({"label": jnp.array([3])}), is_inputs({"tokens": 0})
    (True, False)
  """
  return isinstance(cond, dict) and "label" in cond


def labels(cond: PyTree) -> PyTree:
  """Return a condition without the guidance of `inputs`: its "label".

  Example:
    >>> labels({"label": jnp.array([3])}).tolist()
    [3]
  """
  return cond["label"] if is_inputs(cond) else cond


def replace_labels(cond: PyTree, label: PyTree) -> PyTree:
  """Return the condition with other labels, or another tree in their place.

  Example:
    >>> replace_labels({"label": jnp.array([3])}, jnp.array([5]))
    {'label': Array([5], dtype=int32)}
  """
  return {**cond, "label": label} if is_inputs(cond) else label


def null(cond: PyTree, null_cond: PyTree) -> PyTree:
  """Return the condition with the null condition in every row.

  Example:
    >>> null(jnp.array([3, 1]), 10).tolist()
    [10, 10]
    >>> cond = {"tokens": jnp.array([[4, 5]])}
    >>> null(cond, {"tokens": 0})["tokens"].tolist()
    [[0, 0]]
  """
  label = labels(cond)
  return replace_labels(cond, _of_rows(null_cond, label))


def is_labelled(label: PyTree, null_cond: PyTree) -> Array:
  """Return which rows `[B]` have a condition.

  Example:
    >>> is_labelled(jnp.array([3, 10]), 10).tolist()
    [True, False]
    >>> vectors = jnp.array([[0.5, 2.0], [jnp.nan, jnp.nan]])
    >>> is_labelled(vectors, jnp.nan).tolist()
    [True, False]
  """

  def differs(x, none):
    both_nan = (x != x) & (none != none)
    return ((x != none) & ~both_nan).any(axis=tuple(range(1, x.ndim)))

  found = jax.tree.map(differs, label, _of_rows(null_cond, label))
  return functools.reduce(jnp.logical_or, jax.tree.leaves(found))


def _of_rows(null_cond: PyTree, label: PyTree) -> PyTree:
  """Return the null condition with the shapes and types of a condition."""
  if jax.tree.structure(label) != jax.tree.structure(null_cond):
    raise ValueError(
      f"null_cond={null_cond!r}: it must have the structure of cond, "
      f"{conditions.describe(label)}"
    )
  return jax.tree.map(
    lambda x, none: jnp.broadcast_to(
      jnp.asarray(none, jnp.result_type(x)), x.shape
    ),
    *(label, null_cond),
  )


def drop_labels(
  key: Array,
  cond: PyTree,
  *,
  rate: float,
  null_cond: PyTree,
  among: np.ndarray | None = None,
) -> PyTree:
  """Replace conditions by the null one at random, to guide when sampling.

  Args:
    key: Random key.
    cond: The condition of arrays `[B, ...]`, or None (returned as it is).
    rate: Share of all rows whose condition is dropped, in [0, 1].
    null_cond: The null condition.
    among: Mask `[B]` of the rows whose label may be dropped. Their rate is
      raised, so that `rate` remains the share of all rows.

  Raises:
    ValueError: If `among` has too few rows for the rate, or `null_cond` is not
      that of `cond`.

  Example:
    >>> cond = jnp.array([1, 2, 3])
    >>> drop_labels(jax.random.key(0), cond, rate=1.0, null_cond=5).tolist()
    [5, 5, 5]
  """
  if cond is None or rate == 0:
    return cond
  label = labels(cond)
  if label is None:
    return cond
  size = len(jax.tree.leaves(label)[0])
  share = 1.0 if among is None else float(among.mean())
  if rate > share:
    raise ValueError(
      f"label_dropout {rate} is larger than {share}, the share of the rows "
      "that may lose their label"
    )
  # Of float32, so that the draws are the same ones under x64.
  drop = jax.random.bernoulli(key, jnp.float32(rate / share), (size,))
  if among is not None:
    drop = drop & among
  kept = jax.tree.map(
    lambda x, none: jnp.where(expand(drop, x), none, x),
    *(label, _of_rows(null_cond, label)),
  )
  return replace_labels(cond, kept)


def classifier_free(
  model_fn: ModelFn,
  *,
  scale: float | Array,
  null_cond: PyTree,
  interval: tuple[float, float] | None = None,
) -> ModelFn:
  """Guide a network, eq. (1); its two forwards run as one doubled batch.

  Args:
    model_fn: A network that was also trained on the null condition.
    scale: Guidance scale, or one for each row `[B]`; the number 1 returns
      `model_fn` itself.
    null_cond: The null condition.
    interval: Times `(low, high)`, both included, outside of which the scale
      is 1. A batch that lies outside costs one forward, decided at run time.

  Example:
    >>> net = lambda xt, t, s, cond: expand(1.0 * (cond < 5), xt) * xt
    >>> t = jnp.array([1.0])
    >>> guided = classifier_free(net, scale=3.0, null_cond=5)
    >>> guided(jnp.array([[1.0]]), t, t, jnp.array([2])).tolist()
    [[3.0]]
  """
  if isinstance(scale, int | float) and scale == 1:
    return model_fn

  def guide(weight, xt, t, s, cond):
    with_label, without = rows.side_by_side(
      model_fn, (xt, t, s, cond), (xt, t, s, null(cond, null_cond)), (2, 1)
    )
    return without + expand(weight, xt) * (with_label - without)

  def guided(xt, t, s, cond):
    weight = jnp.full_like(t, scale)
    if interval is None:
      return guide(weight, xt, t, s, cond)
    low, high = interval
    within = inside_interval(t, low, high)
    weight = jnp.where(within, weight, 1)
    return jax.lax.cond(
      within.any(),
      lambda: guide(weight, xt, t, s, cond),
      lambda: model_fn(xt, t, s, cond),
    )

  return guided


def inside_interval(t: Array, low: float, high: float) -> Array:
  """Return whether times `[...]` lie in `[low, high]`, up to rounding.

  The times of a grid are rounded: of `uniform_grid(6)` one is 0.39999998.

  Example:
    >>> inside_interval(jnp.array([0.3, 0.39999998, 0.5]), 0.4, 0.5).tolist()
    [False, True, True]
  """
  # Grids that take powers are off by some units in the last place.
  slack = 16 * jnp.finfo(t.dtype).eps * jnp.maximum(jnp.abs(low), jnp.abs(high))
  return (low - slack <= t) & (t <= high + slack)


def inputs(
  label: PyTree,
  t: Array,
  *,
  omega: Array | float = 1.0,
  t_start: Array | float = 0.0,
  t_end: Array | float = 1.0,
) -> dict[str, PyTree]:
  """Return the condition, `[B]` each, of a network with guidance as an input.

  Args:
    label: Labels `[B]`, or another condition, or None.
    t: Times `[B]`, for shape and type.
    omega: Guidance scale, a number or `[B]`.
    t_start: Start of the guidance interval, likewise.
    t_end: End of the guidance interval, likewise.

  Example:
    >>> cond = inputs(jnp.array([3]), jnp.array([0.5]), omega=2.0)
    >>> cond["omega"].tolist(), cond["t_end"].tolist()
    ([2.0], [1.0])
  """
  return {
    "label": label,
    "omega": jnp.full_like(t, omega),
    "t_start": jnp.full_like(t, t_start),
    "t_end": jnp.full_like(t, t_end),
  }


def fix_guidance(
  model_fn: Callable[..., Any],
  *,
  omega: float,
  t_start: float = 0.0,
  t_end: float = 1.0,
) -> Callable[..., Any]:
  """Fix the guidance of a network whose condition is that of `inputs`.

  The condition of the result is one without guidance, or None.

  Args:
    model_fn: The network.
    omega: Guidance scale.
    t_start: Start of the guidance interval.
    t_end: End of the guidance interval.

  Example:
    >>> net = lambda xt, t, s, cond: cond["omega"]
    >>> t = jnp.array([0.5])
    >>> fix_guidance(net, omega=2.0)(None, t, t, None).tolist()
    [2.0]
  """

  def fixed(xt, t, s, cond):
    given = inputs(labels(cond), t, omega=omega, t_start=t_start, t_end=t_end)
    return model_fn(xt, t, s, given)

  return fixed


def scale_law(draws: Array, *, high: float, power: float = 1.0) -> Array:
  """Map uniform draws to guidance scales of density `scale^-power`.

  This is the law of guidance scales of Geng et al. 2025 (arXiv:2512.02012).

  Args:
    draws: Uniform numbers in [0, 1], `[...]`.
    high: Largest scale; the smallest is 1.
    power: 0 is uniform, 1 uniform in the logarithm.

  Example:
    >>> scale_law(jnp.array([0.0, 0.5, 1.0]), high=4.0).tolist()
    [1.0, 2.0, 4.0]
  """
  if power == 1:
    return high**draws
  root = 1 - power
  return (1 + draws * (high**root - 1)) ** (1 / root)
