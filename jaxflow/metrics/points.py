"""Samples as checked rows of float64 numbers, and distances between them."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.errors import UsageError

Points = NDArray[np.float64]

_WORKING_MEMORY_MIB = 256


def as_points(name: str, samples: ArrayLike) -> Points:
  """Flatten samples to one float64 row each.

  Args:
    name: name of the samples in error messages.
    samples: finite numbers, [N, ...] with N >= 1; [N] is read as [N, 1].

  Returns:
    The same numbers, [N, D].

  Raises:
    UsageError: there are no samples, or a sample is not finite.

  Example:
    >>> as_points("samples", np.zeros((5, 2, 3))).shape
    (5, 6)
  """
  array = np.asarray(samples, np.float64)
  if array.ndim == 0 or array.size == 0:
    raise UsageError(f"{name} has shape {array.shape}; give at least 1 sample")
  points = array.reshape(len(array), -1)
  broken = np.count_nonzero(~np.isfinite(points).all(axis=1))
  if broken:
    raise UsageError(
      f"{name}: {broken} of {len(points)} samples are not finite; remove them"
    )
  return points


def as_pair(
  name_a: str, a: ArrayLike, name_b: str, b: ArrayLike
) -> tuple[Points, Points]:
  """Flatten two sets of samples that must have the same width.

  Args:
    name_a: name of the first set in error messages.
    a: finite numbers, [N, ...].
    name_b: name of the second set.
    b: finite numbers, [M, ...].

  Returns:
    The two sets, [N, D] and [M, D].

  Raises:
    UsageError: a set is empty or not finite, or the shapes of one sample
      differ.

  Example:
    >>> a, b = as_pair("a", np.zeros((5, 2)), "b", np.ones((3, 2)))
    >>> a.shape, b.shape
    ((5, 2), (3, 2))
  """
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

  Example:
    >>> a, b = centred(np.array([[1.0]]), np.array([[3.0]]))
    >>> a.tolist(), b.tolist()
    ([[-1.0]], [[1.0]])
  """
  middle = (a.sum(axis=0) + b.sum(axis=0)) / (len(a) + len(b))
  return a - middle, b - middle


def distance_chunks(a: Points, b: Points) -> Iterator[tuple[slice, Points]]:
  """Compute Euclidean distances in chunks of rows, to save memory.

  Args:
    a: points, [N, D].
    b: points, [M, D].

  Yields:
    A slice of rows of a, and their distances to all of b, [rows, M].

  Example:
    >>> for rows, distances in distance_chunks(np.ones((1, 1)), np.eye(1)):
    ...   rows, distances.tolist()
    (slice(0, 1, None), [[0.0]])
  """
  from sklearn.metrics import pairwise_distances_chunked

  start = 0
  for chunk in pairwise_distances_chunked(
    a, b, working_memory=_WORKING_MEMORY_MIB
  ):
    yield slice(start, start + len(chunk)), chunk
    start += len(chunk)
