"""Pairs of times on a dyadic grid of [0, 1], whose steps are halved.

There are T = num_steps = 2^M smallest steps. Level a < M has the gap 2^-a and
starts on the grid of that gap; two steps of half the gap are its target. Level
M is the diagonal s = t on the grid of 1 / T:

  t = 1 - U{0..2^a - 1} / 2^a,   s = t - 2^-a        interval rows, a < M (1)
  t = U{1..T} / T,               s = t               flow rows            (2)

References:
  Frans et al. 2024 (arXiv:2410.12557), section 3.
"""

import dataclasses
from typing import Annotated

import jax.numpy as jnp
import numpy as np

from jaxflow import rows
from jaxflow.options import Count, Layout
from jaxflow.times.laws import uniform_draws
from jaxflow.types import Array, ModelFn


def levels(num_steps: int, block: rows.Block, batch_size: int) -> np.ndarray:
  """Return the level of every row, `[B]`: M on flow rows, below M on others.

  Interval rows cycle through the levels M - 1, ..., 0, so a level has as many
  rows as any other, or one more. T is a power of two, B a multiple of the m of
  the block (see `rows`) with an interval row or more for each level.
  """
  finest = num_steps.bit_length() - 1
  if num_steps < 2 or num_steps != 2**finest:
    raise ValueError(f"num_steps={num_steps}: give a power of two, 2 or more")
  rows.check_block(block, batch_size)
  m, k = block
  count = batch_size * k // m
  if count < finest:
    raise ValueError(
      f"batch of {batch_size} rows has {count} rows with s < t for the "
      f"{finest} levels of num_steps={num_steps}: use {-(-finest // k) * m} "
      f"rows or more, or num_steps={2**count}"
    )
  level = np.full(batch_size, finest)
  interval = rows.is_interval(block, batch_size)
  level[interval] = finest - 1 - np.arange(count) % finest
  return level


@dataclasses.dataclass(frozen=True, kw_only=True)
class DyadicPair:
  """Pairs `(t, s)` of eq. (1) and (2); which row has which level is static.

  Example:
    >>> pair = DyadicPair(num_steps=4, block=(2, 1))
    >>> t, s = pair.transform(jnp.full(4, 0.75))
    >>> t.tolist(), s.tolist()
    ([0.5, 0.25, 1.0, 0.25], [0.0, 0.25, 0.0, 0.25])
  """

  num_steps: Annotated[Count, Layout()] = 128
  block: rows.Block = (8, 1)

  def transform(self, draws: Array) -> tuple[Array, Array]:
    """Map uniform draws in [0, 1), `[n]`, to `(t [n], s [n])`."""
    level = levels(self.num_steps, self.block, draws.shape[0])
    starts = jnp.asarray(2.0**level, draws.dtype)
    gap = jnp.where(2**level == self.num_steps, 0, 1 / starts)
    t = 1 - jnp.floor(draws * starts) / starts
    return t, t - gap

  def __call__(self, key: Array, n: int) -> tuple[Array, Array]:
    """Sample n pairs `(t [n], s [n])`."""
    return self.transform(uniform_draws(key, n))


def on_diagonal(model_fn: ModelFn, num_steps: int) -> ModelFn:
  """Call a network at s = t for gaps of up to `1 / num_steps`.

  The smallest step is trained as a velocity, at s = t only.
  """

  def snapped(xt, t, s, cond):
    return model_fn(xt, t, jnp.where(t - s <= 1 / num_steps, t, s), cond)

  return snapped
