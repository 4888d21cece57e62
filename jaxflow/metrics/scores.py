"""What an evaluation reports, in one place, and how it is printed.

An evaluation is a dict from the name of a number to a Score; metrics that the
data do not allow are absent. `dataclasses.asdict` makes a Score ready for JSON.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from jaxflow.errors import UsageError, did_you_mean
from jaxflow.metrics.comparison import compare
from jaxflow.metrics.estimates import Estimate
from jaxflow.metrics.summary import SampleSummary
from jaxflow.metrics.table import METRICS, NETWORK, row_of
from jaxflow.metrics.text_tables import render

_LONGEST = 28  # Longer names of metrics are folded.
_ARROWS = {"lower": "↓", "higher": "↑"}

# Numbers of a network, not of a set of samples; which direction is better.
_OF_NETWORKS: Mapping[str, str] = {
  "negative_log_likelihood": "lower",
  "bits_per_dimension": "lower",
  "straightness": "lower",
  "curvature": "lower",
  "truncation": "lower",
}


@dataclasses.dataclass(frozen=True)
class Score:
  """A number beside its value on real data.

  Attributes:
    value: the number.
    error: its standard error over samples of both sets, None where there is no
      telling.
    real: the same with fresh real samples in place of generated ones: the
      floor of a distance, the ceiling of a share. None where there are none.
    real_error: standard error of `real`.
    num: how many generated samples it is of.
    real_num: of how many fresh real ones, None where there are none.
    degrees: degrees of freedom of the error, None where it is known well.

  Example:
    >>> score = Score(value=0.3, error=0.02, num=100)
    >>> [round(x, 4) for x in score.interval]
    [0.2608, 0.3392]
  """

  value: float
  error: float | None
  real: float | None = None
  real_error: float | None = None
  num: int | None = None
  real_num: int | None = None
  degrees: int | None = None

  @property
  def interval(self) -> tuple[float, float]:
    """The central 95 %, by Student's law where degrees are given."""
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

  Args:
    generated: generated samples.
    reference: held-out real data.
    fresh: other real data, as many as generated samples, for the floor.
    **options: as those of `compare`.

  Returns:
    A Score by name, in the order of METRICS.

  Raises:
    UsageError: as `compare`.
    RunError: as `compare`.

  Example:
    >>> import numpy as np
    >>> draw = np.random.default_rng(0).standard_normal
    >>> sets = [
    ...   SampleSummary(num=99, samples=draw((99, 2)) + x) for x in (4, 0, 0)
    ... ]
    >>> found = score(*sets, names=["sliced_wasserstein"])
    >>> found["sliced_wasserstein"].value > 3.5
    True
    >>> found["sliced_wasserstein"].real < 0.5
    True
  """
  return Judge(reference, fresh, **options)(generated)


class Judge:
  """Compares sets of samples with one reference, whose floor is known.

  What asks for the class of a sample is judged by what fresh samples teach, and
  beside it stands what it says of the reference.

  Args:
    reference: held-out real data.
    fresh: other real data, or None for no floor.
    names: of metrics; None for all that the sets allow.
    **options: as those of `compare`.

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
    self._reference, self._fresh = reference, fresh
    self._names, self._options = names, options
    self._floor: dict[str, Estimate] = {}
    if fresh is not None:
      found = compare(fresh, reference, names=names, **options)
      self._names = tuple(found)
      asking = tuple(name for name in found if asks_class(name))
      ceiling = compare(reference, fresh, names=asking, **options)
      self._floor = found | ceiling

  @property
  def names(self) -> tuple[str, ...]:
    """What it computes, where the floor is known."""
    return tuple(self._floor)

  def __call__(self, generated: SampleSummary) -> dict[str, Score]:
    """Return a Score by name, in the order of METRICS.

    Args:
      generated: the samples to judge.
    """
    fresh, reference = self._fresh, self._reference
    found = compare(generated, reference, names=self._names, **self._options)
    asking = tuple(name for name in found if asks_class(name))
    if fresh is not None:
      found |= compare(generated, fresh, names=asking, **self._options)
    scores = {}
    for name, estimate in found.items():
      real = self._floor.get(name)
      scores[name] = Score(
        value=estimate.value,
        error=estimate.error,
        real=None if real is None else real.value,
        real_error=None if real is None else real.error,
        num=estimate.num,
        real_num=None if real is None else real.num,
        degrees=estimate.degrees,
      )
    return scores


def asks_class(name: str) -> bool:
  """Say whether a metric asks for the class of a sample.

  Example:
    >>> asks_class("accuracy_digits"), asks_class("fid")
    (True, False)
  """
  return bool({"labels", "classes"} & set(METRICS[_row(name)].needs))


def of_velocity(name: str) -> bool:
  """Say whether a number is of a velocity, not of samples.

  Example:
    >>> of_velocity("curvature"), of_velocity("recall")
    (True, False)
  """
  return name in _OF_NETWORKS


def sees_images(name: str) -> bool:
  """Say whether a metric is of what a network sees.

  Example:
    >>> sees_images("fid"), sees_images("recall")
    (True, False)
  """
  if name in _OF_NETWORKS:
    return False
  row = _row(name)
  return NETWORK in row or bool(METRICS[row].network)


def direction(name: str) -> str:
  """Return which direction of a number is better, "lower" or "higher".

  Args:
    name: Its name.

  Raises:
    UsageError: There is no such number.

  Example:
    >>> direction("fd_digits"), direction("recall")
    ('lower', 'higher')
  """
  return _OF_NETWORKS.get(name) or METRICS[_row(name)].better


def table(rows: Mapping[str, Mapping[str, Score]]) -> str:
  """Render evaluations as text, each value beside that of real data.

  An arrow says which direction is better. The number of fresh real samples
  follows that of generated ones where they differ.

  Args:
    rows: from the name of a run to its evaluation.

  Returns:
    Lines of at most 100 columns, grouped by metric.

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
  for metric in sorted(names, key=_place):
    lines = [(run, row[metric]) for run, row in rows.items() if metric in row]
    for number, (run, score) in enumerate(lines):
      grid.add_row(
        metric if number == 0 else "",
        _ARROWS[direction(metric)] if number == 0 else "",
        run,
        _counts(score),
        _number(score.value, score.error),
        _number(score.real, score.real_error),
        end_section=number == len(lines) - 1,
      )
  return render(grid)


def _place(name: str) -> int:
  """Return where a number stands in the table."""
  if name in _OF_NETWORKS:
    return len(METRICS) + list(_OF_NETWORKS).index(name)
  return list(METRICS).index(_row(name))


def _row(name: str) -> str:
  """Return the row of a metric of samples."""
  row = row_of(name)
  if row is None:
    every = [*METRICS, *_OF_NETWORKS]
    raise UsageError(
      f"metric {name!r} is unknown: {did_you_mean(name, every)}choose among "
      f"{', '.join(every)}"
    )
  return row


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
