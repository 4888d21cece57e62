"""Layouts of parameters here and in published PyTorch files.

A network's parameters are a tree here and named tensors there. `Leaf` says for
one array of the tree which tensors it is made of, and how; it works both ways,
so what reads a file also writes it.

| | here | PyTorch |
|---|---|---|
| linear map | [in, out] | [out, in] |
| convolution | [h, w, in, out] | [out, in, h, w] |
| patches (a convolution there) | [h w in, out] | [out, in, h, w] |
| q, k, v of heads | [in, heads 3 d] | [3 heads d, in], or three [heads d, in] |
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import jax
import numpy as np

from jaxflow.errors import UsageError
from jaxflow.pretrained.torch_files import Tensors
from jaxflow.types import PyTree

Arrays = Sequence[np.ndarray]
# More names than these are counted, not listed.
_LISTED = 3


@dataclasses.dataclass(frozen=True)
class Leaf:
  """One array of a tree of parameters, and its tensors.

  Attributes:
    names: The names of the tensors.
    shapes: Their shapes.
    read: Makes the array of them.
    write: Makes them of the array.
  """

  names: tuple[str, ...]
  shapes: tuple[tuple[int, ...], ...]
  read: Callable[[Arrays], np.ndarray]
  write: Callable[[np.ndarray], Arrays]


def same(name: str, shape: tuple[int, ...]) -> Leaf:
  """Return the leaf of an array that is laid out alike."""
  return Leaf((name,), (shape,), lambda x: x[0], lambda x: (x,))


def linear(name: str, shape: tuple[int, ...]) -> Leaf:
  """Return the leaf of a linear map [in, out], or of its bias [out]."""
  return Leaf((name,), (shape[::-1],), lambda x: x[0].T, lambda x: (x.T,))


def convolution(name: str, shape: tuple[int, ...]) -> Leaf:
  """Return the leaf of a convolution [h, w, in, out], or of its bias [out]."""
  if len(shape) == 1:
    return same(name, shape)
  height, width, before, after = shape
  return Leaf(
    (name,),
    ((after, before, height, width),),
    lambda x: x[0].transpose(2, 3, 1, 0),
    lambda x: (x.transpose(3, 2, 0, 1),),
  )


def pointwise(name: str, shape: tuple[int, ...]) -> Leaf:
  """Return the leaf of a linear map [in, out] that is a 1 x 1 convolution."""
  inner = convolution(name, (1, 1, *shape))
  return Leaf(
    inner.names,
    inner.shapes,
    lambda x: inner.read(x).reshape(shape),
    lambda x: inner.write(x.reshape(1, 1, *shape)),
  )


def negated(leaf: Leaf) -> Leaf:
  """Return the leaf of an array whose signs are turned."""
  return dataclasses.replace(
    leaf,
    read=lambda x: -leaf.read(x),
    write=lambda x: leaf.write(-x),
  )


def patches(name: str, shape: tuple[int, ...], side: int) -> Leaf:
  """Return the leaf of a map of patches [side side in, out], or its bias."""
  if len(shape) == 1:
    return same(name, shape)
  inner = convolution(name, (side, side, shape[0] // side**2, shape[1]))
  return Leaf(
    inner.names,
    inner.shapes,
    lambda x: inner.read(x).reshape(shape),
    lambda x: inner.write(x.reshape(side, side, -1, shape[1])),
  )


def heads(names: Sequence[str], shape: tuple[int, ...], number: int) -> Leaf:
  """Return the leaf of q, k, v, head by head here, [in, heads 3 d] or its bias.

  One name stands for a tensor that holds all of q, then k, then v, three for
  one of each.
  """
  width = shape[-1] // 3
  apart = (number, 3, width // number)
  rest = shape[:-1]

  def read(tensors: Arrays) -> np.ndarray:
    whole = np.concatenate(list(tensors)).reshape(3, number, -1, *rest)
    order = (1, 0, 2)
    moved = whole.transpose(*order, *range(3, whole.ndim))
    return moved.reshape(3 * width, *rest).T

  def write(array: np.ndarray) -> Arrays:
    whole = array.T.reshape(*apart, *rest)
    moved = whole.transpose(1, 0, 2, *range(3, whole.ndim))
    return np.split(moved.reshape(3 * width, *rest), len(names))

  each = (shape[-1] // len(names), *rest)
  return Leaf(tuple(names), (each,) * len(names), read, write)


def leaves(
  shapes: PyTree, leaf_of: Callable[[list[str], tuple[int, ...]], Leaf]
) -> PyTree:
  """Return the leaves of a tree; `leaf_of` takes place and shape of each."""
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: leaf_of([str(key.key) for key in path], leaf.shape),
    shapes,
  )


def read(
  tensors: Mapping[str, np.ndarray],
  tree: PyTree,
  where: str,
  *,
  ignored: Collection[str] = (),
) -> PyTree:
  """Return the parameters that tensors hold, float32.

  Raises UsageError that says what differs, unless the tensors are those of the
  tree and the `ignored` ones, and finite.
  """
  wanted = {
    name: shape
    for leaf in jax.tree.leaves(tree)
    for name, shape in zip(leaf.names, leaf.shapes, strict=True)
  }
  found = {name: tensors[name].shape for name in {*tensors} - {*ignored}}
  missing = sorted(wanted.keys() - found.keys())
  extra = sorted(found.keys() - wanted.keys())
  other = [
    f"{name} is {found[name]} and not {wanted[name]}"
    for name in sorted(wanted.keys() & found.keys())
    if found[name] != wanted[name]
  ]
  differing = [
    f"{what}{', '.join(names[:_LISTED])}{_more(names)}"
    for what, names in (
      ("it lacks ", missing),
      ("it also has ", extra),
      ("", other),
    )
    if names
  ]
  if differing:
    raise UsageError(
      f"{where} holds another network: {'; '.join(differing)}; give the format "
      "that it has"
    )
  for name in wanted:
    if not np.isfinite(tensors[name]).all():
      raise UsageError(
        f"{where}: {name} has values that are not finite; get the file again"
      )

  def made(leaf: Leaf) -> np.ndarray:
    array = leaf.read([tensors[name] for name in leaf.names])
    # Not ascontiguousarray, which gives a number an axis.
    return np.array(array, np.float32, order="C")

  return jax.tree.map(made, tree)


def write(params: PyTree, tree: PyTree) -> Tensors:
  """Return the tensors of parameters by their published names."""
  made = {}
  arrays = jax.tree.leaves(params)
  for array, leaf in zip(arrays, jax.tree.leaves(tree), strict=True):
    tensors = leaf.write(np.asarray(array))
    for name, tensor in zip(leaf.names, tensors, strict=True):
      # What writes files may take the numbers in the order of memory.
      made[name] = np.array(tensor, order="C")
  return made


def _more(names: Sequence[str]) -> str:
  return f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
