"""The static split of a batch into interval rows (s < t) and flow rows (s = t).

Of every `m` consecutive rows the first `k` are interval rows; `block = (m, k)`.
The batch axis is reshaped `[B] -> [B / m, m]` and the second axis is sliced. So
under data sharding every device splits its own rows, no data moves, and the
share of interval rows does not depend on the number of devices.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow.options import COUNT, Range, RowBlock, RowGroup

Tree = TypeVar("Tree")
_BLOCK = Range(
  "two whole numbers (m, k) with 1 <= k <= m",
  lambda x: len(x) == 2 and 1 <= x[1] <= x[0],
)
Block = Annotated[tuple[int, int], _BLOCK, RowBlock()]
Group = Annotated[int, COUNT, RowGroup()]


def check_block(block: Block, batch_size: int) -> None:
  """Raise ValueError unless 1 <= k <= m and m divides the batch.

  Example:
    >>> check_block((4, 1), 6)
    Traceback (most recent call last):
    ...
    ValueError: batch of 6 rows is no multiple of the block (4, 1): use 8
  """
  m, k = block
  if not 1 <= k <= m:
    raise ValueError(f"block {block} is not (m, k) with 1 <= k <= m")
  if batch_size % m:
    above = -(-batch_size // m) * m
    raise ValueError(
      f"batch of {batch_size} rows is no multiple of the block {block}: "
      f"use {above}"
    )


def check_group(group: Group, batch_size: int) -> None:
  """Raise ValueError unless a group of rows divides the batch.

  Example:
    >>> check_group(4, 6)
    Traceback (most recent call last):
    ...
    ValueError: batch of 6 rows is no multiple of group=4: use 8
  """
  if batch_size % group:
    above = -(-batch_size // group) * group
    raise ValueError(
      f"batch of {batch_size} rows is no multiple of group={group}: use {above}"
    )


def split(tree: Tree, block: Block) -> tuple[Tree, Tree]:
  """Split every leaf `[B, ...]` into its interval and its flow rows.

  Returns:
    Interval rows `[B k / m, ...]` and flow rows `[B (m - k) / m, ...]`.

  Example:
    >>> interval, flow = split(jnp.arange(8), (4, 1))
    >>> interval.tolist(), flow.tolist()
    ([0, 4], [1, 2, 3, 5, 6, 7])
  """
  m, k = block

  def part(x, rows):
    blocks = x.reshape(x.shape[0] // m, m, *x.shape[1:])[:, rows]
    return blocks.reshape(math.prod(blocks.shape[:2]), *x.shape[1:])

  first = jax.tree.map(lambda x: part(x, slice(None, k)), tree)
  rest = jax.tree.map(lambda x: part(x, slice(k, None)), tree)
  return first, rest


def merge(interval: Tree, flow: Tree, block: Block) -> Tree:
  """Merge leaves `[B k / m, ...]` and `[B (m - k) / m, ...]` to `[B, ...]`.

  Example:
    >>> merge(*split(jnp.arange(8), (4, 1)), (4, 1)).tolist()
    [0, 1, 2, 3, 4, 5, 6, 7]
  """
  m, k = block

  def leaf(first, rest):
    blocks = (first.shape[0] + rest.shape[0]) // m
    shape = first.shape[1:]
    first = first.reshape(blocks, k, *shape)
    rest = rest.reshape(blocks, m - k, *shape)
    both = jnp.concatenate([first, rest], axis=1)
    return both.reshape(blocks * m, *shape)

  return jax.tree.map(leaf, interval, flow)


def side_by_side(
  function: Callable[..., Tree],
  first: tuple[Any, ...],
  second: tuple[Any, ...],
  block: Block,
) -> tuple[Tree, Tree]:
  """Call a function once for the arguments of two sets of rows.

  The sets stand side by side within a block, so that no row changes its device.
  """
  return split(function(*merge(first, second, block)), block)


def is_interval(block: Block, batch_size: int) -> np.ndarray:
  """Return the mask `[B]` of interval rows.

  Example:
    >>> is_interval((2, 1), 4).tolist()
    [True, False, True, False]
  """
  m, k = block
  return np.arange(batch_size) % m < k
