"""Output of commands: lines, and a progress bar on a terminal."""

import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from jaxflow.training.callbacks import Start


def log(text: str) -> None:
  """Print a line, once a job; a reader that left (`| head`) stops nothing."""
  if "jax" in sys.modules:  # Nothing else can have joined a job.
    from jaxflow.parallel import processes

    if not processes.is_main():
      return
  try:
    print(text, flush=True)
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def progress() -> list["ProgressBar"]:
  """Return the callbacks that show progress: a bar, on a terminal."""
  return [ProgressBar()] if sys.stdout.isatty() else []


class ProgressBar:
  """A callback of training that shows a bar below the lines.

  As long as it is there, lines of `print` appear above it.
  """

  def __init__(self):
    self._bar: Any = None

  def on_start(self, start: "Start") -> None:
    """Show the bar."""
    from rich import progress

    from jaxflow.training.progress import Remaining

    self._remaining = Remaining(start)
    self._end: float | None = None
    self._bar = progress.Progress(
      progress.TextColumn("step {task.completed:,}/{task.total:,}"),
      progress.BarColumn(),
      progress.TaskProgressColumn(),
      progress.TextColumn("{task.fields[scalars]}"),
      progress.TextColumn("{task.fields[bar].eta}"),
      refresh_per_second=2,
      redirect_stderr=sys.stderr.isatty(),
    )
    self._task = self._bar.add_task(
      "", total=start.steps, completed=start.step, scalars="", bar=self
    )
    self._bar.start()

  def on_log(self, step: int, scalars: Mapping[str, float]) -> None:
    """Move the bar."""
    left = self._remaining.seconds(step, scalars)
    self._end = None if left is None else time.monotonic() + left
    shown = [f"loss {scalars['loss']:.4g}"]
    if "samples_per_second" in scalars:
      shown.append(f"{scalars['samples_per_second']:,.0f} samples/s")
    self._bar.update(self._task, completed=step, scalars="  ".join(shown))

  @property
  def eta(self) -> str:
    """The time that is left by now, as text."""
    from jaxflow.training.progress import clock_time

    if self._end is None:
      return "ETA -:--"
    return f"ETA {clock_time(max(self._end - time.monotonic(), 0))}"

  def close(self) -> None:
    """Leave the bar as it is."""
    if self._bar is not None:
      self._bar.stop()
