"""What an experiment has measured: rows with labels, one number a seed."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.files import replace_file

Label = str | int | float


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of a table.

  Attributes:
    labels: What was measured: method, number of steps, ...
    numbers: Metrics by name, one value a seed; one value for all where it does
      not depend on the seed. What is not finite is kept as None.
  """

  labels: Mapping[str, Label]
  numbers: Mapping[str, ArrayLike]

  def as_json(self) -> dict[str, Any]:
    """Return labels, and of each metric its values, mean and deviation."""
    numbers = {}
    for name, values in self.numbers.items():
      found = np.atleast_1d(np.asarray(values, np.float64))
      finite = found[np.isfinite(found)]
      numbers[name] = {
        "values": [float(x) if math.isfinite(x) else None for x in found],
        "mean": float(finite.mean()) if len(finite) else None,
        "deviation": float(finite.std(ddof=1)) if len(finite) > 1 else None,
      }
    return {"labels": dict(self.labels), "numbers": numbers}


@dataclasses.dataclass(frozen=True)
class Results:
  """All rows of an experiment, and how they came about.

  Attributes:
    about: Command, settings, seeds, machine, versions, seconds.
    rows: As `Row.as_json` gives them.
    claims: As `Claim.as_json` gives them.
  """

  about: Mapping[str, Any]
  rows: Sequence[Mapping[str, Any]]
  claims: Sequence[Mapping[str, Any]] = ()

  def select(self, **labels: Label) -> list[Mapping[str, Any]]:
    """Return the rows that have all these labels."""
    return [
      row
      for row in self.rows
      if all(row["labels"].get(k) == v for k, v in labels.items())
    ]

  def values(self, metric: str, **labels: Label) -> NDArray[np.float64]:
    """Return a metric of the one row with these labels, one number a seed.

    Runs that diverged are NaN.

    Raises:
      KeyError: If no row, or more than one, has these labels and the metric.
    """
    rows = [row for row in self.select(**labels) if metric in row["numbers"]]
    if len(rows) != 1:
      raise KeyError(f"{len(rows)} rows have {labels} and {metric!r}, not 1")
    values = rows[0]["numbers"][metric]["values"]
    return np.array([np.nan if x is None else x for x in values])

  def save(self, path: pathlib.Path) -> None:
    """Write JSON, replacing the file in one step."""
    text = json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False)
    replace_file(path, lambda part: part.write_text(text + "\n"))

  @classmethod
  def load(cls, path: pathlib.Path) -> Self:
    """Read what `save` has written."""
    return cls(**json.loads(path.read_text()))

  @staticmethod
  def is_one(path: pathlib.Path) -> bool:
    """Say whether a JSON file holds results with claims."""
    return "claims" in json.loads(path.read_text())
