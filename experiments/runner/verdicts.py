"""Verdicts on claims, by numbers of several seeds alone.

A check compares two numbers that were measured with the same seeds. Their
difference has a mean and a standard error over seeds; a check is confirmed
where it is more than two errors on one side of zero, refuted where it is on the
other, else undecided: so is a tie.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

ERRORS = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
  """Whether one number is smaller, or larger, than another, seed by seed.

  Attributes:
    says: What holds if it is, as a clause: "MeanFlow is nearer at one call".
    left: The number that should be the better, one a seed; None where a run
      diverged, which counts as worse than any number.
    right: The other, likewise.
    larger: Whether the better is the larger, not the smaller.
  """

  says: str
  left: tuple[float | None, ...]
  right: tuple[float | None, ...]
  larger: bool = False

  @property
  def difference(self) -> tuple[float, float] | None:
    """Mean and standard error of left - right; None if a run diverged."""
    if None in self.left + self.right:
      return None
    d = np.subtract(self.left, self.right)
    if len(d) < 2 or np.ptp(d) == 0:
      return float(d.mean()), 0.0
    return float(d.mean()), float(d.std(ddof=1) / math.sqrt(len(d)))

  @property
  def verdict(self) -> str:
    """`confirmed`, `refuted` or `undecided`."""
    found = self.difference
    if found is None:
      return self._by_order()
    mean, error = found
    mean = -mean if self.larger else mean
    if mean + ERRORS * error < 0:
      return "confirmed"
    return "refuted" if mean - ERRORS * error > 0 else "undecided"

  def _by_order(self) -> str:
    """Where runs diverged there is no mean: all seeds must agree."""
    sign = -1 if self.larger else 1
    sides = [
      tuple(math.inf if x is None else sign * x for x in pair)
      for pair in zip(self.left, self.right, strict=True)
    ]
    if len(sides) >= 3 and all(a < b for a, b in sides):
      return "confirmed"
    if len(sides) >= 3 and all(a > b for a, b in sides):
      return "refuted"
    return "undecided"

  def as_json(self) -> dict[str, Any]:
    """Return what the results keep of it."""
    mean, error = self.difference or (None, None)
    return {
      "says": self.says,
      "left": list(self.left),
      "right": list(self.right),
      "larger": self.larger,
      "difference": mean,
      "error": error,
      "verdict": self.verdict,
    }


def at_most(
  says: str, left: ArrayLike, right: ArrayLike, *, factor: float = 1.0
) -> Check:
  """Check `left <= factor * right`, where a tie decides nothing.

  Args:
    says: What holds if it is so, as a clause.
    left: One number a seed, or one for all; NaN or infinite where a run
      diverged.
    right: Likewise.
    factor: How many times `right`, above 0.

  Example:
    >>> at_most("a is half of b", [1.0, 1.1], [2.4, 2.5], factor=0.5).verdict
    'confirmed'
  """
  a, b = np.broadcast_arrays(
    np.asarray(left, np.float64), factor * np.asarray(right, np.float64)
  )
  return Check(says=says, left=_numbers(a), right=_numbers(b))


def at_least(
  says: str, left: ArrayLike, right: ArrayLike, *, factor: float = 1.0
) -> Check:
  """Check `left >= factor * right`; arguments as `at_most`.

  Example:
    >>> at_least("a is half of b", [1.0, 1.1], [1.7, 1.8], factor=0.5).verdict
    'confirmed'
  """
  return dataclasses.replace(
    at_most(says, left, right, factor=factor), larger=True
  )


def _numbers(values: np.ndarray) -> tuple[float | None, ...]:
  return tuple(
    float(x) if math.isfinite(x) else None for x in np.atleast_1d(values)
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
  """A sentence of the field, and the checks that it stands for.

  Attributes:
    text: The sentence.
    checks: The claim holds if all of them are confirmed.
    limits: What of the claim these checks cannot reach, "" for nothing.
  """

  text: str
  checks: Sequence[Check]
  limits: str = ""

  @property
  def verdict(self) -> str:
    """`confirmed`, `refuted`, `depends` or `undecided`.

    It depends where some checks are confirmed and some are refuted; it is
    refuted where some are and none is confirmed. Without a check it is open.
    """
    found = {check.verdict for check in self.checks} or {"undecided"}
    if "refuted" in found:
      return "depends" if "confirmed" in found else "refuted"
    return "undecided" if "undecided" in found else "confirmed"

  def as_json(self) -> dict[str, Any]:
    """Return what the results keep of it."""
    return {
      "claim": self.text,
      "verdict": self.verdict,
      "limits": self.limits,
      "checks": [check.as_json() for check in self.checks],
    }
