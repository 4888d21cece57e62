"""Averages of any width after training, from those that a run has stored.

The average by the power law at update T weighs the parameters of update k by
the integral over [k - 1, k] of the profile

  p(u) = (g + 1) u^g / T^(g + 1)   on [0, T],   g the law's gamma.        (1)

Averages of one run, at several updates and of several laws, are summed with
weights x for which the sum of their profiles is nearest to the wanted one:

  A x = b,   A_ij = <p_i, p_j>,   b_i = <p_i, p>,                         (2)
  <p_a, p_b> = (g_a + 1) (g_b + 1) / (g_a + g_b + 1) (lo / hi)^e / hi,    (3)

with lo and hi the smaller and the larger T, and e the g of the larger.

References:
  Karras et al. 2024, EDM2 (arXiv:2312.02696), section 3.2 and appendix C.
"""

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxflow.errors import UsageError
from jaxflow.training.ema import Power

_WIDTH = re.compile(r"width=(.*)")


class Profile(NamedTuple):
  """An average by the power law, or several of them.

  Attributes:
    updates: T, the number of the last update.
    gamma: Exponent of the law.
  """

  updates: ArrayLike
  gamma: ArrayLike


def law_of(name: str) -> Power | None:
  """Return the law of an average that is named by its width; None for others.

  Raises:
    UsageError: If no average has such a width.

  Example:
    >>> law_of("width=0.1"), law_of("sampling")
    (Power(width=0.1), None)
  """
  match = _WIDTH.fullmatch(name)
  if match is None:
    return None
  try:
    return Power(width=float(match[1]))
  except ValueError as error:
    raise UsageError(
      f"ema={name!r}: give a width above 0, below 0.2886"
    ) from error


def overlap(a: Profile, b: Profile) -> np.ndarray:
  """Return <p_a, p_b> of eq. (3); the fields broadcast.

  Example:
    >>> overlap(Profile(2, 0), Profile(4, 0)).item()    # 2 1/2 1/4
    0.25
  """
  t_a, g_a, t_b, g_b = (np.asarray(x, np.float64) for x in (*a, *b))
  low, high = np.minimum(t_a, t_b), np.maximum(t_a, t_b)
  exponent = np.where(t_a < t_b, g_b, g_a)
  scale = (g_a + 1) * (g_b + 1) / (g_a + g_b + 1)
  return scale * (low / high) ** exponent / high


def weights(stored: Profile, wanted: Profile) -> tuple[np.ndarray, float]:
  """Return x of eq. (2), and how far the profile of the sum is from the wanted.

  The distance is that of L2, as a share of the norm of the wanted profile.

  Args:
    stored: Those that are summed, `[n]` each.
    wanted: One profile.
  """
  updates, gamma = (np.asarray(x, np.float64) for x in stored)
  a = overlap(Profile(updates[:, None], gamma[:, None]), stored)
  b, norm = overlap(stored, wanted), overlap(wanted, wanted)
  # Profiles of unit norm: else those of early averages would decide.
  scale = np.sqrt(np.diag(a))
  x = np.linalg.lstsq(a / np.outer(scale, scale), b / scale, rcond=1e-12)[0]
  x = x / scale
  square = x @ a @ x - 2 * x @ b + norm
  return x, float(np.sqrt(max(square / norm, 0)))
