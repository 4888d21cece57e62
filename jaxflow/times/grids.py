"""Time grids: functions of a number of points that return decreasing times.

References:
  Karras et al. 2022 (arXiv:2206.00364), eq. 5; Esser et al. 2024
  (arXiv:2403.03206), eq. 23.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp

from jaxflow.types import Array

Grid = Callable[[int], Array]


def uniform_grid(
  num_points: int, *, t_min: float = 0.0, t_max: float = 1.0
) -> Array:
  """Return `num_points` equally spaced times from `t_max` down to `t_min`.

  Example:
    >>> uniform_grid(3).tolist()
    [1.0, 0.5, 0.0]
  """
  return jnp.linspace(t_max, t_min, num_points)


def karras_grid(
  num_points: int,
  *,
  t_min: float = 0.002,
  t_max: float = 80.0,
  rho: float = 7.0,
) -> Array:
  """Return the grid of Karras et al. 2022, eq. 5, decreasing, `[num_points]`.

  Example:
    >>> [round(float(t), 3) for t in karras_grid(3)]
    [80.0, 2.515, 0.002]
  """
  ends = t_max ** (1 / rho), t_min ** (1 / rho)
  return jnp.linspace(*ends, num_points) ** rho


def log_grid(num_points: int, *, t_min: float, t_max: float) -> Array:
  """Return times equally spaced in `ln t`: in log-SNR on the EDM path.

  Example:
    >>> [round(float(t), 3) for t in log_grid(3, t_min=0.01, t_max=1.0)]
    [1.0, 0.1, 0.01]
  """
  if t_min <= 0:
    raise ValueError(
      f"a log grid cannot end at t_min={t_min}: use another grid"
    )
  return jnp.exp(jnp.linspace(math.log(t_max), math.log(t_min), num_points))


def shifted_grid(
  num_points: int, *, t_min: float = 0.0, t_max: float = 1.0, shift: float = 3.0
) -> Array:
  """Return `k u / (1 + (k - 1) u)` of a uniform grid u, scaled to the path.

  `shift` k > 1 puts more points near noise (Esser et al. 2024, eq. 23).

  Example:
    >>> shifted_grid(3).tolist()
    [1.0, 0.75, 0.0]
  """
  u = uniform_grid(num_points)
  return t_min + (t_max - t_min) * shift * u / (1 + (shift - 1) * u)
