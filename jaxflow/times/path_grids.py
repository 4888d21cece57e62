"""Time grids for sampling that depend on a path, a list or another grid.

A grid maps a number of points to decreasing times. Grids of the noise level
sigma / alpha are the same for every path; paths differ only in the times at
which they reach these levels.

References:
  Karras et al. 2022 (arXiv:2206.00364), eq. 5; Lu et al. 2022
  (arXiv:2211.01095), section 6 for steps uniform in log-SNR.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxflow.paths import Path
from jaxflow.times.grids import Grid, karras_grid, log_grid
from jaxflow.types import Array

# Halvings of [t_min, t_max]: more than float64 has bits.
_HALVINGS = 64

# The cosine of a right angle is a rounding error, not 0.
_ZERO = 1e-6


def given_grid(num_points: int, *, values: Sequence[float]) -> Array:
  """Return the times of a given list.

  Raises:
    ValueError: If the list has not `num_points` times, or does not decrease.

  Example:
    >>> given_grid(3, values=(80.0, 0.5, 0.0)).tolist()
    [80.0, 0.5, 0.0]
  """
  if len(values) != num_points:
    raise ValueError(
      f"{num_points - 1} steps need {num_points} times, not the {len(values)} "
      f"that are given: ask for {len(values) - 1} steps"
    )
  if any(a <= b for a, b in itertools.pairwise(values)):
    raise ValueError(f"times {tuple(values)} do not decrease")
  return jnp.asarray(values, float)


def extended_grid(num_points: int, *, grid: Grid, last: float = 0.0) -> Array:
  """Return a grid with one more time, for instance Karras' grid and then 0.

  Args:
    num_points: Number of times, the last one included.
    grid: Makes the others.
    last: The last time, below theirs.

  Example:
    >>> [round(float(t), 3) for t in extended_grid(4, grid=karras_grid)]
    [80.0, 2.515, 0.002, 0.0]
  """
  others = grid(num_points - 1)
  return jnp.append(others, jnp.asarray(last, others.dtype))


def log_snr_grid(
  num_points: int, *, path: Path, t_min: float, t_max: float
) -> Array:
  """Return times equally spaced in the log-SNR of a path.

  Args:
    num_points: Number of times.
    path: The path.
    t_min: The last time; sigma > 0 there.
    t_max: The first time; alpha > 0 there.

  Raises:
    ValueError: If the log-SNR is infinite at an end.

  Example:
    >>> from jaxflow.paths import Linear
    >>> grid = log_snr_grid(3, path=Linear(), t_min=0.1, t_max=0.9)
    >>> [round(float(t), 3) for t in grid]
    [0.9, 0.5, 0.1]
  """
  low, high = _ends(path, t_min, t_max)
  return _times_of(
    path, log_grid(num_points, t_min=low, t_max=high), t_min, t_max
  )


def karras_ratio_grid(
  num_points: int, *, path: Path, t_min: float, t_max: float, rho: float = 7.0
) -> Array:
  """Return Karras' grid of the noise ratio as times of a path.

  Args:
    num_points: Number of times.
    path: The path.
    t_min: The last time.
    t_max: The first time; alpha > 0 there.
    rho: As in `karras_grid`.

  Raises:
    ValueError: If the log-SNR is infinite at an end.

  Example:
    >>> from jaxflow.paths import Linear
    >>> grid = karras_ratio_grid(3, path=Linear(), t_min=0.006, t_max=0.994)
    >>> [round(float(t), 3) for t in grid]
    [0.994, 0.848, 0.006]
  """
  low, high = _ends(path, t_min, t_max)
  ratios = karras_grid(num_points, t_min=low, t_max=high, rho=rho)
  return _times_of(path, ratios, t_min, t_max)


def time_of_ratio(path: Path, ratio: Array) -> Array:
  """Return the times `[...]` at which `sigma / alpha` is `ratio` `[...]`.

  By bisection between `path.t_min` and `path.t_max`, so it serves every path.

  Example:
    >>> from jaxflow.paths import Linear
    >>> round(float(time_of_ratio(Linear(), jnp.array(1.0))), 6)
    0.5
  """

  def halve(_, bounds):
    low, high = bounds
    middle = (low + high) / 2
    below = path.sigma(middle) < ratio * path.alpha(middle)
    return jnp.where(below, middle, low), jnp.where(below, high, middle)

  bounds = jnp.full_like(ratio, path.t_min), jnp.full_like(ratio, path.t_max)
  low, high = jax.lax.fori_loop(0, _HALVINGS, halve, bounds)
  return (low + high) / 2


def _ends(path: Path, t_min: float, t_max: float) -> tuple[float, float]:
  """Return the noise ratios of two times."""
  ratios = []
  for name, t in (("t_min", t_min), ("t_max", t_max)):
    # Evaluated now, also inside jit: the ends are no traced values.
    with jax.ensure_compile_time_eval():
      alpha, sigma = (
        float(coefficient(jnp.asarray(t, float)))
        for coefficient in (path.alpha, path.sigma)
      )
    if min(alpha, sigma) < _ZERO:
      raise ValueError(
        f"{name} {t}: the log-SNR is infinite there; give a {name} inside the "
        "path"
      )
    ratios.append(sigma / alpha)
  return ratios[0], ratios[1]


def _times_of(path: Path, ratios: Array, t_min: float, t_max: float) -> Array:
  # Rounding must not carry the ends off the given times.
  return time_of_ratio(path, ratios).at[0].set(t_max).at[-1].set(t_min)
