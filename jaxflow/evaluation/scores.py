"""What an evaluation reports, in one place, and how it is printed.

An evaluation is a dict from the name of a metric (a key of METRICS) to a
Score; metrics that the data do not allow are absent. `dataclasses.asdict` makes
a Score ready for JSON.
"""

import dataclasses
import io
import math
from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table

_WIDTH = 100

METRICS: Mapping[str, str] = {
  "recognised": "higher",
  "sliced_wasserstein": "lower",
  "energy_distance": "lower",
  "frechet": "lower",
  "precision": "higher",
  "recall": "higher",
  "mode_coverage": "higher",
  "high_quality": "higher",
}
"""Every metric, in the order of printing, and which direction is better."""


@dataclasses.dataclass(frozen=True)
class Score:
  """One metric over several draws of samples, beside its value on real data.

  The errors say how far the means would move with other draws; the held-out
  data and the directions of the slices stay the same for all draws. An error is
  None for a single draw.

  Attributes:
    mean: mean over the draws of samples.
    error: standard error of that mean.
    real: the same metric with fresh real samples in place of generated ones:
      the floor of a distance, the ceiling of `recognised`.
    real_error: standard error of `real`.

  Example:
    >>> Score(mean=0.3, error=0.02, real=0.25, real_error=0.01).real
    0.25
  """

  mean: float
  error: float | None
  real: float
  real_error: float | None


def summarise(values: list[float], real: list[float]) -> Score:
  """Averages the values of one metric over draws.

  Args:
    values: one for each draw of samples, at least one.
    real: one for each draw of real data, at least one.

  Returns:
    Means and standard errors (sample deviation over the root of the number).

  Example:
    >>> summarise([1.0, 3.0], [2.0])
    Score(mean=2.0, error=1.0, real=2.0, real_error=None)
  """
  return Score(*_mean_and_error(values), *_mean_and_error(real))


def table(rows: Mapping[str, Mapping[str, Score]]) -> str:
  """Renders evaluations as text, each value beside that of real data.

  Args:
    rows: from the name of a run to its evaluation.

  Returns:
    Lines of at most 100 columns, grouped by metric.

  Example:
    >>> score = Score(mean=0.3, error=0.02, real=0.25, real_error=0.01)
    >>> text = table({"1 step": {"energy_distance": score}})
    >>> "0.3000 ± 0.0200" in text, "0.2500 ± 0.0100" in text
    (True, True)
  """
  grid = Table(box=box.SIMPLE)
  grid.add_column("metric", no_wrap=True)
  grid.add_column("better", no_wrap=True)
  grid.add_column("run", overflow="fold")
  for name in ("value", "real data"):
    grid.add_column(name, justify="right", no_wrap=True)
  for metric, better in METRICS.items():
    lines = [(run, row[metric]) for run, row in rows.items() if metric in row]
    for number, (run, score) in enumerate(lines):
      grid.add_row(
        metric if number == 0 else "",
        better if number == 0 else "",
        run,
        _number(score.mean, score.error),
        _number(score.real, score.real_error),
        end_section=number == len(lines) - 1,
      )
  return _text(grid)


def _mean_and_error(values: list[float]) -> tuple[float, float | None]:
  """Computes the mean and, for more than one value, its standard error."""
  count = len(values)
  mean = math.fsum(values) / count
  if count == 1:
    return mean, None
  square = math.fsum((value - mean) ** 2 for value in values)
  return mean, math.sqrt(square / (count - 1) / count)


def _number(mean: float, error: float | None) -> str:
  """Writes a mean and its standard error with four decimals."""
  return f"{mean:.4f}" if error is None else f"{mean:.4f} ± {error:.4f}"


def _text(grid: Table) -> str:
  """Prints a table without colour, whatever the terminal or notebook."""
  buffer = io.StringIO()
  console = Console(
    file=buffer,
    width=_WIDTH,
    color_system=None,
    force_jupyter=False,
    markup=False,
    emoji=False,
  )
  console.print(grid)
  lines = buffer.getvalue().splitlines()
  return "\n".join(line.rstrip() for line in lines).strip("\n")
