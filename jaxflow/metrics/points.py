"""Samples as checked rows of float64 numbers, and distances between them."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.errors import UsageError

Points = NDArray[np.float64]

_WORKING_MEMORY_MIB = 256


def count_broken(rows: np.ndarray) -> int:
  """Count the rows [N, ...] that hold a number that is not finite."""
  finite = np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
  return int(np.count_nonzero(~finite))


def as_points(name: str, samples: ArrayLike) -> Points:
  """Flatten samples [N, ...] to finite rows [N, D], N >= 1; [N] to [N, 1].

  Errors call the samples `name`.
  """
  array = np.asarray(samples, np.float64)
  if array.ndim == 0 or array.size == 0:
    raise UsageError(f"{name} has shape {array.shape}; give at least 1 sample")
  if broken := count_broken(array):
    raise UsageError(
      f"{name}: {broken} of {len(array)} samples are not finite; remove them"
    )
  return array.reshape(len(array), -1)


def as_pair(
  name_a: str, a: ArrayLike, name_b: str, b: ArrayLike
) -> tuple[Points, Points]:
  """Flatten two sets, as `as_points`, whose samples must have one shape."""
  shape_a, shape_b = np.shape(a)[1:], np.shape(b)[1:]
  if shape_a != shape_b:
    raise UsageError(
      f"one sample of {name_a} has shape {shape_a} and one of {name_b} "
      f"{shape_b}; give both the same shape"
    )
  return as_points(name_a, a), as_points(name_b, b)


def centred(a: Points, b: Points) -> tuple[Points, Points]:
  """Shift two sets [N, D] and [M, D] so that their pooled mean is zero.

  Fast pairwise distances use |x|^2 + |y|^2 - 2 x.y, which loses digits for
  points far from the origin.
  """
  middle = (a.sum(axis=0) + b.sum(axis=0)) / (len(a) + len(b))
  return a - middle, b - middle


def evenly(rows: np.ndarray, most: int) -> np.ndarray:
  """Choose at most so many rows, evenly spaced in their order.

  Example:
    >>> evenly(np.arange(9), 3).tolist()
    [0, 3, 6]
  """
  num = min(len(rows), most)
  return rows[np.arange(num) * len(rows) // num]


def distance_chunks(a: Points, b: Points) -> Iterator[tuple[slice, Points]]:
  """Yield slices of rows of a, and their distances to b, to save memory."""
  from sklearn.metrics import pairwise_distances_chunked

  start = 0
  for chunk in pairwise_distances_chunked(
    a, b, working_memory=_WORKING_MEMORY_MIB
  ):
    yield slice(start, start + len(chunk)), chunk
    start += len(chunk)
