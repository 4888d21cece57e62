"""Figures of images, points in the plane and curves, as small PNG files.

Functions import matplotlib themselves, because its import is slow.
"""

from jaxflow.figures.curves import read_log, save_curves, save_overlaid_curves
from jaxflow.figures.images import (
  drawable,
  grid_of,
  optional_picture,
  save_grid,
  save_matrix,
  save_samples,
  save_strip,
)
from jaxflow.figures.planes import (
  save_arrows,
  save_density,
  save_points,
  save_trajectories,
)

__all__ = [
  "drawable",
  "grid_of",
  "optional_picture",
  "read_log",
  "save_arrows",
  "save_curves",
  "save_density",
  "save_grid",
  "save_matrix",
  "save_overlaid_curves",
  "save_points",
  "save_samples",
  "save_strip",
  "save_trajectories",
]
