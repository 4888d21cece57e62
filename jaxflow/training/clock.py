"""The speed of training, and the time spent waiting for data."""

import time


class Clock:
  """Measure speed and waiting.

  Args:
    step: First step of this process.
    batch_size: Samples a step.
    seconds: How long the run has trained before this process.
  """

  def __init__(self, *, step: int, batch_size: int, seconds: float = 0.0):
    self._origin = time.perf_counter() - seconds
    self._batch_size = batch_size
    self.start(step)

  def start(self, step: int, waited: float = 0.0) -> None:
    """Start again at `step`: compilation before it does not count as speed."""
    self._mark = (step, time.perf_counter())
    self._waited = waited

  def skip(self, seconds: float, steps: int = 0) -> None:
    """Leave out time in which nothing, or a program's first steps, ran."""
    step, then = self._mark
    self._mark = (step + steps, then + seconds)

  def seconds(self) -> float:
    """Return how long the run has trained, compilation included."""
    return time.perf_counter() - self._origin

  def lap(self, step: int, waited: float = 0.0) -> tuple[float, float]:
    """Return samples/s, 0 without steps, and the share of waiting."""
    now = time.perf_counter()
    last, then = self._mark
    seconds = max(now - then, 1e-9)
    speed = (step - last) * self._batch_size / seconds
    share = (waited - self._waited) / seconds
    self._mark, self._waited = (step, now), waited
    return speed, share
