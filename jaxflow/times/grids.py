"""Time grids: functions of a number of points that return decreasing times.

Grids of the noise level sigma / alpha are the same for every path; paths differ
only in the times at which they reach these levels.

References:
  Karras et al. 2022 (arXiv:2206.00364), eq. 5; Lu et al. 2022
  (arXiv:2211.01095), section 6 for steps uniform in log-SNR; Esser et al. 2024
  (arXiv:2403.03206), eq. 23 for the shift.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxflow.options import Amount, End, Positive
from jaxflow.paths import Path
from jaxflow.types import Array

Grid = Callable[[int], Array]

# Halvings of [t_min, t_max]: more than float64 has bits.
_HALVINGS = 64

# The cosine of a right angle is a rounding error, not 0.
_ZERO = 1e-6


def uniform_grid(
  num_points: int, *, t_min: Amount = 0.0, t_max: End = 1.0
) -> Array:
  """Return equally spaced times.

  Example:
    >>> uniform_grid(3).tolist()
    [1.0, 0.5, 0.0]
  """
  return jnp.linspace(t_max, t_min, num_points)


def karras_grid(
  num_points: int,
  *,
  t_min: Amount = 0.002,
  t_max: End = 80.0,
  rho: Positive = 7.0,
) -> Array:
  """Return times whose roots of order `rho` are equally spaced.

  Example:
    >>> [round(float(t), 3) for t in karras_grid(3)]
    [80.0, 2.515, 0.002]
  """
  ends = t_max ** (1 / rho), t_min ** (1 / rho)
  return jnp.linspace(*ends, num_points) ** rho


def log_grid(num_points: int, *, t_min: Amount, t_max: End) -> Array:
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
  num_points: int,
  *,
  t_min: Amount = 0.0,
  t_max: End = 1.0,
  shift: Positive = 3.0,
) -> Array:
  """Return `k u / (1 + (k - 1) u)` of a uniform grid u, scaled to the path.

  A `shift` k > 1 puts more points near noise.

  Example:
    >>> shifted_grid(3).tolist()
    [1.0, 0.75, 0.0]
  """
  u = uniform_grid(num_points)
  return t_min + (t_max - t_min) * shift * u / (1 + (shift - 1) * u)


def given_grid(num_points: int, *, values: Sequence[float]) -> Array:
  """Return the times of a decreasing list of `num_points`.

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


def extended_grid(num_points: int, *, grid: Grid, last: Amount = 0.0) -> Array:
  """Return a grid and one more time below, for instance Karras' grid and 0.

  Example:
    >>> [round(float(t), 3) for t in extended_grid(4, grid=karras_grid)]
    [80.0, 2.515, 0.002, 0.0]
  """
  others = grid(num_points - 1)
  return jnp.append(others, jnp.asarray(last, others.dtype))


def log_snr_grid(
  num_points: int, *, path: Path, t_min: Amount, t_max: End
) -> Array:
  """Return times equally spaced in the log-SNR of a path, finite at both ends.

  Example:
    >>> from jaxflow.paths import Linear
    >>> grid = log_snr_grid(3, path=Linear(), t_min=0.1, t_max=0.9)
    >>> [round(float(t), 3) for t in grid]
    [0.9, 0.5, 0.1]
  """
  low, high = _ends(path, t_min, t_max)
  ratios = log_grid(num_points, t_min=low, t_max=high)
  return _times_of(path, ratios, t_min, t_max)


def karras_ratio_grid(
  num_points: int, *, path: Path, t_min: Amount, t_max: End, rho: Positive = 7.0
) -> Array:
  """Return Karras' grid of noise levels, finite ones, as times of a path.

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
      time = jnp.asarray(t, float)
      alpha, sigma = float(path.alpha(time)), float(path.sigma(time))
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
