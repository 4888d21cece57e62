"""Small parameters, and all that has their shapes, as one vector.

An optimizer that treats numbers one by one, averages and the guard against bad
steps are a few operations on a vector, where they are a few an array otherwise,
and every operation is a program of its own to a compiler for CPUs. Of a
DiT-S, whose blocks are a loop, that leaves 516 of 609 fusions. Large arrays
stay as they are: a copy of them would cost memory and time.
"""

import dataclasses
import itertools
import math
from typing import Any, Self, TypeVar

import jax
import jax.numpy as jnp

from jaxflow.types import Array, PyTree

_Tree = TypeVar("_Tree")

# Numbers of the vector at most: 16 MiB of float32.
MOST = 2**22


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packing:
  """How the small arrays of a tree lie in a vector.

  Attributes:
    structure: That of the tree; None packs nothing.
    shapes: The shapes of its arrays, in its order; None of those that stay.
  """

  structure: Any = None
  shapes: tuple[tuple[int, ...] | None, ...] = ()

  @classmethod
  def of(cls, params: PyTree) -> Self:
    """Return the packing of parameters: of the smallest, up to `MOST` numbers.

    It packs nothing where they are of several types, or fewer than two small.
    """
    leaves, structure = jax.tree.flatten(params)
    order = sorted(range(len(leaves)), key=lambda i: leaves[i].size)
    sums = itertools.accumulate(leaves[i].size for i in order)
    small = {i for i, total in zip(order, sums, strict=True) if total <= MOST}
    if len(small) < 2 or len({leaf.dtype for leaf in leaves}) > 1:
      return cls()
    shapes = (x.shape if i in small else None for i, x in enumerate(leaves))
    return cls(structure=structure, shapes=tuple(shapes))

  def pack(self, tree: _Tree) -> _Tree:
    """Pack every part of a tree that has the structure.

    It becomes a list of the vector and the arrays that stay.

    Example:
      >>> params = {"w": jnp.ones((2, 2)), "b": jnp.zeros(1)}
      >>> packing = Packing.of(params)
      >>> packing.pack({"mean": params, "count": 3})["mean"][0].tolist()
      [0.0, 1.0, 1.0, 1.0, 1.0]
    """
    return jax.tree.map(
      lambda x: self._packed(x) if self._is_one(x) else x,
      tree,
      is_leaf=self._is_one,
    )

  def unpack(self, packed: _Tree, like: _Tree) -> _Tree:
    """Take back `pack`, of a tree that is now like another."""
    return jax.tree.map(
      lambda x, part: self._arrays(*part) if self._is_one(x) else part,
      like,
      packed,
      is_leaf=self._is_one,
    )

  def _is_one(self, part: PyTree) -> bool:
    if self.structure is None:
      return False
    return jax.tree.structure(part) == self.structure

  def _packed(self, tree: PyTree) -> list[Array]:
    leaves = zip(jax.tree.leaves(tree), self.shapes, strict=True)
    small, large = [], []
    for leaf, shape in leaves:
      (large if shape is None else small).append(leaf)
    return [jnp.concatenate([jnp.ravel(x) for x in small]), *large]

  def _arrays(self, vector: Array, *large: Array) -> PyTree:
    arrays, others, begin = [], iter(large), 0
    for shape in self.shapes:
      if shape is None:
        arrays.append(next(others))
        continue
      end = begin + math.prod(shape)
      arrays.append(jnp.reshape(vector[begin:end], shape))
      begin = end
    return jax.tree.unflatten(self.structure, arrays)
