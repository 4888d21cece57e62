"""Memory of recent data: a ring of rows for each class, the oldest go first.

A ring of M rows of a class holds the last M rows that were pushed. Row number n
of a class lies at place n modulo M, so the count of pushed rows is all that
there is to know.
"""

from typing import Any

import jax.numpy as jnp

from jaxflow import times
from jaxflow.types import Array

# "rows" [K, M, ...], and "count" [K], the rows that were ever pushed.
Ring = dict[str, Any]


def empty_ring(classes: int, size: int, shape: tuple[int, ...]) -> Ring:
  """Return rings without rows, one of `size` rows for each class."""
  return {
    "rows": jnp.zeros((classes, size, *shape)),
    "count": jnp.zeros(classes, jnp.int32),
  }


def push(ring: Ring, data: Array, label: Array) -> Ring:
  """Return rings with new rows.

  Args:
    ring: The rings of K classes.
    data: Rows [B, ...].
    label: Their classes [B], integers; rows of other classes than 0..K - 1 are
      left out.

  Example:
    >>> ring = empty_ring(1, 2, ())
    >>> zeros = jnp.zeros(3, int)
    >>> push(ring, jnp.array([1.0, 2.0, 3.0]), zeros)["rows"].tolist()
    [[3.0, 2.0]]
  """
  classes, size = ring["rows"].shape[:2]
  of_class = label[:, None] == jnp.arange(classes)[None]
  counts = jnp.cumsum(of_class, axis=0, dtype=jnp.int32)
  added = counts[-1]
  known = jnp.clip(label, 0, classes - 1)
  rank = jnp.take_along_axis(counts, known[:, None], axis=1)[:, 0] - 1
  place = (ring["count"][known] + rank) % size
  # Of more rows than there are places the last stay; others fall outside.
  kept = (rank >= added[known] - size) & (label == known)
  place = jnp.where(kept, place, size)
  held = (
    ring["rows"]
    .at[known, place]
    .set(data.astype(ring["rows"].dtype), mode="drop")
  )
  return {"rows": held, "count": ring["count"] + added}


def draw(ring: Ring, key: Array, label: Array, num: int) -> Array:
  """Draw rows of a ring for each of C classes, `[C num, ...]`.

  They are drawn without replacement; where a ring has fewer, they repeat.

  Args:
    ring: The rings, of which those of `label` have rows.
    key: Random key.
    label: The classes [C].
    num: Rows for each.

  Example:
    >>> import jax
    >>> label = jnp.zeros(2, int)
    >>> ring = push(empty_ring(1, 3, ()), jnp.array([1.0, 2.0]), label)
    >>> sorted(draw(ring, jax.random.key(0), label[:1], 2).tolist())
    [1.0, 2.0]
  """
  size = ring["rows"].shape[1]
  there = jnp.minimum(ring["count"][label], size)
  draws = times.uniform_draws(key, len(label), size)
  absent = jnp.arange(size)[None] >= there[:, None]
  order = jnp.argsort(jnp.where(absent, 2, draws), axis=1)
  which = jnp.arange(num)[None] % jnp.maximum(there, 1)[:, None]
  place = jnp.take_along_axis(order, which, axis=1)
  rows = ring["rows"][label[:, None], place]
  return rows.reshape(-1, *rows.shape[2:])
