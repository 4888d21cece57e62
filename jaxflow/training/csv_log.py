"""A table of scalars, `metrics.csv`."""

import csv
import logging
import pathlib
from collections.abc import Mapping

from jaxflow.files import appending, replace_file, set_aside
from jaxflow.reading import read_table

_LOGGER = logging.getLogger(__name__)


class CsvLog:
  """Write scalars of a run in its workdir, a row for each step.

  Args:
    workdir: The run's folder.
    start: Step at which the run starts or resumes; rows that an interrupted
      run wrote beyond it are dropped.
    name: Of the file, `NAME.csv`.

  Attributes:
    seconds: How long the run had trained before this process, as logged.
    dropped: The last step of the rows that were dropped, 0 without.
  """

  def __init__(
    self, workdir: pathlib.Path, *, start: int = 0, name: str = "metrics"
  ):
    self._path = workdir / f"{name}.csv"
    self._rows, self.dropped = _rows_until(self._path, start)
    self.seconds = (
      float(self._rows[-1].get("seconds") or 0) if self._rows else 0.0
    )

  def on_log(self, step: int, scalars: Mapping[str, float]) -> None:
    """Write one row; a scalar that is new adds a column."""
    row = {"step": str(step)} | {k: f"{v:.6g}" for k, v in scalars.items()}
    columns = list(self._rows[0]) if self._rows else []
    self._rows.append(row)
    if set(row) <= set(columns):
      with appending(self._path) as file:
        csv.DictWriter(file, columns, restval="").writerow(row)
    else:
      self._rewrite()

  def _rewrite(self) -> None:
    columns = dict.fromkeys(k for row in self._rows for k in row)
    self._rows = [{k: row.get(k, "") for k in columns} for row in self._rows]
    _write_rows(self._path, list(columns), self._rows)


def _rows_until(
  path: pathlib.Path, start: int
) -> tuple[list[dict[str, str]], int]:
  """Read the rows up to a step, and drop the others; return the last of them.

  A link in its place is not read: the first row replaces it.
  """
  if path.is_symlink() or not path.exists():
    return [], 0
  rows, damaged = read_table(path)
  if damaged:  # Nothing of it is lost.
    _LOGGER.warning("%s: the log as it was", set_aside(path))
  columns = list(rows[0]) if rows else []
  last = max((int(row["step"]) for row in rows), default=0)
  rows = [row for row in rows if int(row["step"]) <= start]
  _write_rows(path, columns, rows)
  return rows, last if last > start else 0


def _write_rows(
  path: pathlib.Path, columns: list[str], rows: list[dict[str, str]]
) -> None:
  def write(draft: pathlib.Path) -> None:
    with open(draft, "w", newline="") as file:
      writer = csv.DictWriter(file, columns)
      writer.writeheader()
      writer.writerows(rows)

  replace_file(path, write)
