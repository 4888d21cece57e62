"""Evaluations of a run as its workdir keeps them."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxflow.errors import UsageError

# Metrics by which samples of two runs are set side by side, the first that
# there is: of the network that everybody uses, of another, of none.
_LEADING = ("fid", "fd_", "sliced_wasserstein")


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
  """Read the rows of an `evaluation.json`.

  Args:
    path: The file; it need not be there.

  Returns:
    Its rows: `nfe`, `step`, `scores` (name -> `value`, `real`, ...) and more;
    none without a file.

  Raises:
    UsageError: If it is no file of `jaxflow evaluate`.
  """
  try:
    rows = json.loads(path.read_text())["rows"]
    for row in rows:
      _ = row["nfe"], row["step"], dict(row["scores"])
    return rows
  except FileNotFoundError:
    return []
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UsageError(
      f"{path} cannot be read ({error}): delete it, or run jaxflow evaluate "
      "again"
    ) from error


def leading_metric(scores: Mapping[str, Any]) -> str | None:
  """Return the metric by which samples are set beside others.

  Args:
    scores: Anything by the names of metrics.

  Returns:
    "fid", else a Frechet distance of another network, else
    "sliced_wasserstein"; None where there is none of them.

  Example:
    >>> leading_metric({"sliced_wasserstein": 1, "fd_digits_classifier": 2})
    'fd_digits_classifier'
  """
  for start in _LEADING:
    for name in scores:
      if name == start or (start.endswith("_") and name.startswith(start)):
        return name
  return None
