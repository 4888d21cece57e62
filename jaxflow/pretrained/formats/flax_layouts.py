"""Layouts of parameters here and in published Flax files.

| | here | Flax |
|---|---|---|
| linear map | [in, out] | [in, out] |
| patches (a convolution there) | [h w in, out] | [h, w, in, out] |
| q, k, v of heads | [in, heads 3 d] | [in, 3 heads d], or three [in, heads d] |
| rotated features of a head | in halves | in halves, or pair by pair |

Whatever is laid out alike is `layouts.same`.
"""

from collections.abc import Sequence

import numpy as np

from jaxflow.pretrained.formats import layouts
from jaxflow.pretrained.formats.layouts import Arrays, Leaf


def reshaped(name: str, shape: tuple[int, ...], there: Sequence[int]) -> Leaf:
  """Return the leaf of an array that has another shape there."""
  return Leaf(
    (name,),
    (tuple(there),),
    lambda x: x[0].reshape(shape),
    lambda x: (x.reshape(there),),
  )


def patches(name: str, shape: tuple[int, ...], side: int) -> Leaf:
  """Return the leaf of a map of patches [side side in, out], or its bias."""
  if len(shape) == 1:
    return layouts.same(name, shape)
  return reshaped(name, shape, (side, side, shape[0] // side**2, shape[1]))


def halves(leaf: Leaf) -> Leaf:
  """Return a leaf whose last axis is a head's, pair by pair there."""
  return Leaf(
    leaf.names,
    leaf.shapes,
    lambda x: _apart(leaf.read(x)),
    lambda x: leaf.write(_together(x)),
  )


def heads(
  names: Sequence[str],
  shape: tuple[int, ...],
  number: int,
  *,
  pairs: bool = False,
) -> Leaf:
  """Return the leaf of q, k, v, head by head here, [in, heads 3 d] or its bias.

  One name stands for an array that holds all of q, then k, then v, three for
  one of each. `pairs` says that q and k are rotated pair by pair there.
  """
  *rest, features = shape
  split = (*rest, 3, number, features // (3 * number))

  def read(tensors: Arrays) -> np.ndarray:
    whole = np.concatenate(list(tensors), axis=-1).reshape(split)
    if pairs:
      turned = _apart(whole)
      whole = np.concatenate([turned[..., :2, :, :], whole[..., 2:, :, :]], -3)
    return whole.swapaxes(-3, -2).reshape(shape)

  def write(array: np.ndarray) -> Arrays:
    whole = array.reshape(*rest, number, 3, -1).swapaxes(-3, -2)
    if pairs:
      turned = _together(whole)
      whole = np.concatenate([turned[..., :2, :, :], whole[..., 2:, :, :]], -3)
    return np.split(whole.reshape(shape), len(names), axis=-1)

  each = (*rest, features // len(names))
  return Leaf(tuple(names), (each,) * len(names), read, write)


def _apart(x: np.ndarray) -> np.ndarray:
  """Return features in halves that come pair by pair."""
  return np.concatenate([x[..., ::2], x[..., 1::2]], axis=-1)


def _together(x: np.ndarray) -> np.ndarray:
  """Return features pair by pair that come in halves."""
  return np.stack(np.split(x, 2, axis=-1), axis=-1).reshape(x.shape)
