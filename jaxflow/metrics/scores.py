"""What an evaluation reports, in one place, and how it is printed.

An evaluation is a dict from the name of a number to a Score; metrics that the
data do not allow are absent. `dataclasses.asdict` makes a Score ready for JSON.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from jaxflow.metrics.comparison import compare
from jaxflow.metrics.estimates import Estimate
from jaxflow.metrics.summary import SampleSummary
from jaxflow.metrics.table import (
  asks_class,
  direction,
  known_row,
  of_velocity,
  place_of,
)
from jaxflow.metrics.text_tables import render
from jaxflow.options import Count

_LONGEST = 28  # Longer names of metrics are folded.
ARROWS = {"lower": "↓", "higher": "↑"}


@dataclasses.dataclass(frozen=True)
class Score:
  """A number beside its value on real data.

  Attributes:
    value: the number.
    error: its standard error over samples of both sets, None if unknown.
    real: the same with fresh real samples in place of generated ones: the
      floor of a distance, the ceiling of a share. None without such samples.
    real_error: standard error of `real`.
    num: number of generated samples.
    real_num: number of fresh real samples.
    degrees: degrees of freedom of the error, None for very many.

  Example:
    >>> score = Score(value=0.3, error=0.02, num=100)
    >>> [round(x, 4) for x in score.interval]
    [0.2608, 0.3392]
  """

  value: float
  error: float | None
  real: float | None = None
  real_error: float | None = None
  num: Count | None = None
  real_num: int | None = None
  degrees: int | None = None

  @property
  def interval(self) -> tuple[float, float]:
    """The central 95 % interval, of Student's t if degrees are given."""
    return Estimate(
      value=self.value, error=self.error, degrees=self.degrees
    ).interval


def score(
  generated: SampleSummary,
  reference: SampleSummary,
  fresh: SampleSummary | None = None,
  **options: Any,
) -> dict[str, Score]:
  """Compare generated samples, and fresh real ones, with a reference.

  This is `Judge` for one set of samples. For an equal floor, `fresh` holds as
  many samples as `generated`.

  Example:
    >>> import numpy as np
    >>> draw = np.random.default_rng(0).standard_normal
    >>> sets = [
    ...   SampleSummary(num=99, samples=draw((99, 2)) + x) for x in (4, 0, 0)
    ... ]
    >>> (found,) = score(*sets, names=["sliced_wasserstein"]).values()
    >>> found.value > 3.5, found.real < 0.5
    (True, True)
  """
  return Judge(reference, fresh, **options)(generated)


class Judge:
  """Compares sets of samples with one reference, and computes its floor once.

  A metric that asks for classes needs a classifier. The fresh samples train it,
  and its ceiling is the value of the reference.

  Args:
    reference: held-out real data.
    fresh: other real data, or None for no floor.
    **options: as those of `compare`, `names` among them; `left_out` has a say
      only where no names are given.

  Raises:
    UsageError: as `compare`.
    RunError: as `compare`.

  Example:
    >>> import numpy as np
    >>> draw = np.random.default_rng(0).standard_normal
    >>> near, far, real, fresh = (
    ...   SampleSummary(num=99, samples=draw((99, 2)) + x)
    ...   for x in (1, 4, 0, 0))
    >>> judge = Judge(real, fresh, names=["energy_distance"])
    >>> [judge(x)["energy_distance"].value > 5 for x in (near, far)]
    [False, True]
  """

  def __init__(
    self,
    reference: SampleSummary,
    fresh: SampleSummary | None,
    *,
    names: Sequence[str] | None = None,
    **options: Any,
  ):
    if names is not None:
      options["left_out"] = None
    self._reference, self._fresh = reference, fresh
    self._names, self._options = names, options
    self._floor: dict[str, Estimate] = {}
    if fresh is not None:
      found = compare(fresh, reference, names=names, **options)
      self._names = tuple(found)
      asking = tuple(filter(asks_class, found))
      self._floor = found | compare(reference, fresh, names=asking, **options)

  @property
  def names(self) -> tuple[str, ...]:
    """The metrics that it computes, if the floor is known."""
    return tuple(self._floor)

  def __call__(self, generated: SampleSummary) -> dict[str, Score]:
    """Return a Score by name, in the order of METRICS."""
    fresh, reference = self._fresh, self._reference
    if fresh is None:
      found = compare(generated, reference, names=self._names, **self._options)
    else:
      asking = tuple(filter(asks_class, self.names))
      others = tuple(x for x in self.names if x not in asking)
      found = compare(generated, reference, names=others, **self._options)
      found |= compare(generated, fresh, names=asking, **self._options)
      found = {name: found[name] for name in self.names if name in found}
    scores = {}
    for name, estimate in found.items():
      real = self._floor.get(name)
      scores[name] = Score(
        **dataclasses.asdict(estimate),
        real=real and real.value,
        real_error=real and real.error,
        real_num=real and real.num,
      )
    return scores


def table(rows: Mapping[str, Mapping[str, Score]]) -> str:
  """Render evaluations as text, each value beside that of real data.

  Lines have at most 100 columns and are grouped by metric. An arrow says which
  direction is better. The number of fresh real samples follows that of
  generated ones if they differ.

  Args:
    rows: evaluations by the name of a run.

  Raises:
    UsageError: a number has a name that no metric has.

  Example:
    >>> score = Score(0.3, 0.02, 0.25, 0.01, 2000, 2000)
    >>> text = table({"1 step": {"energy_distance": score}})
    >>> "0.3000 ± 0.0200" in text, "0.2500 ± 0.0100" in text
    (True, True)
  """
  grid = Table(box=box.SIMPLE, collapse_padding=True)
  names = dict.fromkeys(name for row in rows.values() for name in row)
  longest = max(map(len, names), default=0)
  grid.add_column("metric", overflow="fold", no_wrap=longest <= _LONGEST)
  grid.add_column("", no_wrap=True)
  grid.add_column("run", overflow="fold")
  for name in ("N", "value", "real data"):
    grid.add_column(name, justify="right", no_wrap=True)
  for metric in sorted(names, key=place):
    lines = [(run, row[metric]) for run, row in rows.items() if metric in row]
    for number, (run, score) in enumerate(lines):
      grid.add_row(
        metric if number == 0 else "",
        ARROWS[direction(metric)] if number == 0 else "",
        run,
        _counts(score),
        _number(score.value, score.error),
        _number(score.real, score.real_error),
        end_section=number == len(lines) - 1,
      )
  return render(grid)


def place(name: str) -> int:
  """Return where a number stands in a table."""
  return place_of(name if of_velocity(name) else known_row(name))


def _counts(score: Score) -> str:
  """Write the numbers of samples, one where they are equal."""
  counts = dict.fromkeys(n for n in (score.num, score.real_num) if n)
  return "/".join(map(str, counts))


def _number(value: float | None, error: float | None) -> str:
  """Write a number and its standard error; small ones with a power of 10."""
  if value is None:
    return ""
  style = ".4f" if abs(value) >= 1e-3 or value == 0 else ".2e"
  text = format(value, style)
  return text if error is None else f"{text} ± {error:{style}}"
