"""Logs of scalars: a console line, `metrics.csv` and TensorBoard."""

import csv
import pathlib
import time
from collections.abc import Mapping

from tensorboardX import SummaryWriter

from jaxflow.files import replace_file

__all__ = ["Clock", "Log", "NoLog", "line"]


class Log:
  """Writes scalars of a run in its workdir.

  Args:
    workdir: The run's folder.
    start: Step at which the run starts or resumes; rows that an interrupted
      run wrote beyond it are dropped.
    name: Of the file, `NAME.csv`.
    prefix: Of the scalars in TensorBoard.

  Attributes:
    seconds: How long the run had trained before this process, as logged.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    *,
    start: int = 0,
    name: str = "metrics",
    prefix: str = "",
  ):
    self._csv = workdir / f"{name}.csv"
    self._prefix = prefix
    self._rows = _rows_until(self._csv, start)
    self.seconds: float = (
      float(self._rows[-1].get("seconds") or 0) if self._rows else 0.0
    )
    self._board = SummaryWriter(
      str(workdir / "tensorboard"), purge_step=start + 1 if start else None
    )

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Write one row; a scalar that is new adds a column."""
    row = {"step": str(step)} | {k: f"{v:.6g}" for k, v in scalars.items()}
    columns = list(self._rows[0]) if self._rows else []
    self._rows.append(row)
    if set(row) <= set(columns):
      with open(self._csv, "a", newline="") as file:
        csv.DictWriter(file, columns, restval="").writerow(row)
    else:
      self._rewrite()
    for name, value in scalars.items():
      self._board.add_scalar(self._prefix + name, value, step)
    self._board.flush()

  def close(self) -> None:
    """Flush and close the files."""
    self._board.close()

  def _rewrite(self) -> None:
    columns = dict.fromkeys(k for row in self._rows for k in row)
    self._rows = [{k: row.get(k, "") for k in columns} for row in self._rows]
    _write_rows(self._csv, list(columns), self._rows)


class NoLog:
  """The log of a process that is not the one to write."""

  seconds: float = 0.0

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Write nothing."""

  def close(self) -> None:
    """Close nothing."""


def _rows_until(path: pathlib.Path, start: int) -> list[dict[str, str]]:
  """Read the rows up to a step, and drop the others from the file."""
  if not path.exists():
    return []
  with open(path, newline="") as file:
    reader = csv.DictReader(file)
    # A killed process may have left half a line.
    rows = [
      row
      for row in reader
      if None not in row.values() and row.get("step", "").isdigit()
    ]
    columns = list(reader.fieldnames or [])
  rows = [row for row in rows if int(row["step"]) <= start]
  _write_rows(path, columns, rows)
  return rows


def _write_rows(
  path: pathlib.Path, columns: list[str], rows: list[dict[str, str]]
) -> None:
  def write(draft: pathlib.Path) -> None:
    with open(draft, "w", newline="") as file:
      writer = csv.DictWriter(file, columns)
      writer.writeheader()
      writer.writerows(rows)

  replace_file(path, write)


class Clock:
  """Measures speed and waiting, and guesses when a run will end.

  Args:
    step: First step of this process.
    steps: Last step of the run.
    batch_size: Samples a step.
    seconds: How long the run has trained before this process.
  """

  def __init__(
    self, *, step: int, steps: int, batch_size: int, seconds: float = 0.0
  ):
    self._origin = time.perf_counter() - seconds
    self._steps = steps
    self._batch_size = batch_size
    self.start(step)

  def start(self, step: int, waited: float = 0.0) -> None:
    """Start again at `step`: compilation before it does not count as speed."""
    self._mark = self._first = (step, time.perf_counter())
    self._waited = waited

  def skip(self, seconds: float) -> None:
    """Leave out time in which nothing was trained."""
    (last, then), (first, began) = self._mark, self._first
    self._mark, self._first = (last, then + seconds), (first, began + seconds)

  def seconds(self) -> float:
    """Return how long the run has trained, compilation included."""
    return time.perf_counter() - self._origin

  def lap(self, step: int, waited: float = 0.0) -> tuple[float, float, float]:
    """Return speed and waiting since the last lap, and seconds left.

    Args:
      step: The step that was reached.
      waited: Seconds that were spent waiting for data, in all.

    Returns:
      Samples/s, the share of time spent waiting, and seconds left.
    """
    now = time.perf_counter()
    (last, then), (first, began) = self._mark, self._first
    seconds = max(now - then, 1e-9)
    speed = (step - last) * self._batch_size / seconds
    share = (waited - self._waited) / seconds
    pace = (now - began) / max(step - first, 1)
    self._mark, self._waited = (step, now), waited
    return speed, share, pace * (self._steps - step)


def line(
  step: int, steps: int, scalars: Mapping[str, float], eta: float
) -> str:
  """Format one console line.

  Example:
    >>> line(50, 100, {"loss": 0.5, "samples_per_second": 1234.0}, 65)
    'step  50/100  loss 0.5  samples_per_second 1234  ETA 1:05'
  """
  width = len(str(steps))
  values = "  ".join(f"{k} {v:.4g}" for k, v in scalars.items())
  minutes, seconds = divmod(round(eta), 60)
  return f"step {step:>{width}}/{steps}  {values}  ETA {minutes}:{seconds:02d}"
