"""Progress of training in words: a line for each log interval."""

from collections.abc import Callable, Mapping

from jaxflow.training.callbacks import Start


class Remaining:
  """Guess when training will end, at its mean speed in this process."""

  def __init__(self, start: Start):
    self._start = start
    self._step = start.step
    self._trained = self._seconds = 0.0

  def seconds(self, step: int, scalars: Mapping[str, float]) -> float | None:
    """Return the seconds that are left, None as long as no speed is known."""
    speed = scalars.get("samples_per_second")
    if speed:
      samples = (step - self._step) * self._start.batch_size
      self._trained += samples
      self._seconds += samples / speed
    self._step = step
    if not self._trained:
      return None
    left = (self._start.steps - step) * self._start.batch_size
    return left * self._seconds / self._trained


class ProgressLines:
  """Print a line for each log interval."""

  def __init__(self, log: Callable[[str], None]):
    self._log = log

  def on_start(self, start: Start) -> None:
    """Note where training starts and ends."""
    self._steps = start.steps
    self._remaining = Remaining(start)

  def on_log(self, step: int, scalars: Mapping[str, float]) -> None:
    """Print the line of a step."""
    left = self._remaining.seconds(step, scalars)
    self._log(progress_line(step, self._steps, scalars, left))


def progress_line(
  step: int, steps: int, scalars: Mapping[str, float], left: float | None
) -> str:
  """Return a line with the scalars that tell whether training goes well.

  Example:
    >>> scalars = {"loss": 0.5, "gradient_norm": 2.0, "skipped": 0}
    >>> progress_line(50, 1000, scalars, None)
    'step    50/1,000  loss 0.5  gradient norm 2'
  """
  total = f"{steps:,}"
  parts = [f"step {step:>{len(total)},}/{total}"]
  raw = [name for name in scalars if name.startswith("raw")]
  theirs = [name for name in scalars if name.endswith("_loss")]
  for name in ("loss", *raw, *theirs, "gradient_norm", "learning_rate"):
    if name in scalars:
      parts.append(f"{name.replace('_', ' ')} {scalars[name]:.4g}")
  if scalars.get("skipped"):
    parts.append(f"skipped {scalars['skipped']:,} step(s)")
  if "samples_per_second" in scalars:
    speed = scalars["samples_per_second"]
    parts.append(f"{speed:,.{0 if speed >= 100 else 1}f} samples/s")
  if left is not None:
    parts.append(f"ETA {clock_time(left)}")
  return "  ".join(parts)


def clock_time(seconds: float) -> str:
  """Return a duration as on a clock.

  Example:
    >>> clock_time(65), clock_time(7384)
    ('1:05', '2:03:04')
  """
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours}:{minutes:02d}:{seconds:02d}"
  return f"{minutes}:{seconds:02d}"
