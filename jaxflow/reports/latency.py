"""Times of functions, measured side by side.

The speed of a machine drifts with its clock and its other work. So functions
are timed in rounds, each once a round in a new order, and two of them are
compared round by round: a drift meets both, and the median passes over
outliers.
"""

import dataclasses
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.errors import UsageError

__all__ = ["Latency", "excess", "time_together"]

K = TypeVar("K", bound=Hashable)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latency:
  """Times of one call.

  Attributes:
    median: Seconds.
    p95: Seconds that 95 of 100 calls do not exceed.
    num: Number of calls that were timed.
  """

  median: float
  p95: float
  num: int

  @classmethod
  def of(cls, seconds: ArrayLike) -> "Latency":
    """Return the summary of the times `[N]` of calls.

    Example:
      >>> Latency.of([3.0, 1.0, 2.0]).median
      2.0
    """
    array = np.asarray(seconds, np.float64)
    return cls(
      median=float(np.median(array)),
      p95=float(np.quantile(array, 0.95)),
      num=len(array),
    )


def time_together(
  calls: Mapping[K, Callable[[], Any]],
  *,
  seconds: float = 3.0,
  least: int = 20,
  most: int = 300,
  agree: Callable[[bool], bool] = bool,
) -> dict[K, NDArray[np.float64]]:
  """Return times of functions, called in rounds until results are ready.

  Each is called twice before, so that nothing is compiled while it is timed.

  Args:
    calls: Functions without arguments that return arrays of JAX.
    seconds: How long to go on.
    least: Number of rounds at least, whatever they take.
    most: Number of rounds at most.
    agree: In a job of several processes, makes one answer of theirs: all must
      go on equally often.

  Returns:
    Seconds of each function, `[rounds]`, by its key; place i is round i.

  Raises:
    UsageError: If `least` is below 1 or above `most`.

  Example:
    >>> laps = time_together({"sum": lambda: jax.numpy.ones(3).sum()}, most=20)
    >>> laps["sum"].shape
    (20,)
  """
  if not 1 <= least <= most:
    raise UsageError(f"least={least}: give 1 to most={most}")
  for call in calls.values():
    jax.block_until_ready(call())
    jax.block_until_ready(call())
  names = list(calls)
  # All processes of a job take the same order.
  order = np.random.default_rng(0)
  laps: dict[K, list[float]] = {name: [] for name in names}
  begin, number = time.perf_counter(), 0
  while number < least or (
    number < most and agree(time.perf_counter() - begin < seconds)
  ):
    for index in order.permutation(len(names)):
      start = time.perf_counter()
      jax.block_until_ready(calls[names[index]]())
      laps[names[index]].append(time.perf_counter() - start)
    number += 1
  return {name: np.array(values) for name, values in laps.items()}


def excess(
  seconds: ArrayLike, reference: ArrayLike, *, times: int = 1
) -> tuple[float, float]:
  """Return how much longer a function takes than calls of another.

  Args:
    seconds: Times of the function, by rounds, `[N]`.
    reference: Times of one call of the other in the same rounds, `[N]`.
    times: Number of calls of the other to compare with.

  Returns:
    The median of `seconds / (times * reference) - 1`, and the standard error of
    that median, from the spread between quartiles as of a normal law.

  Example:
    >>> excess([2.2, 4.4, 2.2], [1.0, 2.0, 1.0], times=2)[0].__round__(6)
    0.1
  """
  ratio = np.asarray(seconds) / (times * np.asarray(reference)) - 1
  low, middle, high = np.quantile(ratio, [0.25, 0.5, 0.75])
  # Of a normal law the quartiles are 1.349 deviations apart, and the median of
  # N values deviates by sqrt(pi / 2) of what their mean does.
  deviation = (high - low) / 1.349
  return float(middle), float(np.sqrt(np.pi / 2 / len(ratio)) * deviation)
