"""Points between two points of Gaussian noise.

A straight line between two draws of noise in many dimensions passes through
points that are much shorter than any draw; an arc between them does not.

References:
  Shoemake 1985, Animating rotation with quaternion curves; White 2016
  (arXiv:1609.04468) for the noise of generators.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.errors import UsageError

__all__ = ["slerp"]


def slerp(a: ArrayLike, b: ArrayLike, *, num: int) -> NDArray[np.float64]:
  """Return points on arcs between two ends, row by row.

  With angle phi between a and b, the point at share u is
  `(sin((1 - u) phi) a + sin(u phi) b) / sin(phi)`.

  Args:
    a: First ends, `[N, ...]`.
    b: Last ends, of the same shape.
    num: Number of points, both ends included, at least 2.

  Returns:
    Points, `[N, num, ...]`.

  Raises:
    UsageError: If the shapes differ or num is below 2.

  Example:
    >>> slerp([[1.0, 0.0]], [[0.0, 1.0]], num=3)[0, 1].round(4).tolist()
    [0.7071, 0.7071]
  """
  first, last = np.asarray(a, np.float64), np.asarray(b, np.float64)
  if first.shape != last.shape or first.ndim < 2:
    raise UsageError(
      f"a has shape {first.shape} and b {last.shape}; give both the same"
    )
  if num < 2:
    raise UsageError(f"num={num}: give at least 2, the two ends")
  x, y = (end.reshape(len(end), 1, -1) for end in (first, last))
  lengths = np.linalg.norm(x, axis=2) * np.linalg.norm(y, axis=2)
  cosine = (x * y).sum(axis=2) / np.maximum(lengths, 1e-300)
  angle = np.arccos(np.clip(cosine, -1, 1))[..., None]
  share = np.linspace(0, 1, num)[None, :, None]
  # Where the ends lie on one line, the arc is that line.
  straight = np.sin(angle) < 1e-9
  scale = np.where(straight, 1, np.sin(angle))
  of_x = np.where(straight, 1 - share, np.sin((1 - share) * angle) / scale)
  of_y = np.where(straight, share, np.sin(share * angle) / scale)
  return (of_x * x + of_y * y).reshape(len(first), num, *first.shape[1:])
