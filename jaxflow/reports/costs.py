"""What sampling costs, as `bench.json` keeps it."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any, Self

from jaxflow.errors import UsageError
from jaxflow.reports.latency import Latency


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
  """How good samples are.

  Attributes:
    value: of the samples.
    real: of real data in their place, the floor.
  """

  value: float
  real: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
  """What one sampler costs at one batch size.

  Attributes:
    model: "run" or "teacher".
    method: the row of METHODS that trained it.
    solver: what applies the network.
    nfe: network calls per sample.
    batch: samples at a time.
    compile_seconds: time to compile it, or to read it from a cache of JAX.
    latency: of one batch.
    samples_per_second: from the median.
    memory: bytes on a device at the fullest moment.
    flops: matrix products' FLOPs per sample.
    network: latency of one network call of the same batch.
    overhead: how much longer the sampler takes than `nfe` network calls, as a
      share of them; below zero where one program beats `nfe`.
    overhead_error: standard error of `overhead`.
    flops_overhead: FLOPs of matrix products beyond those of the calls, as a
      share; exact.
    operations_overhead: the same of all arithmetic, as the compiler counts it;
      None of programs with loops, which it does not count.
    scores: by the names of metrics, those that are known.
  """

  model: str
  method: str
  solver: str
  nfe: int
  batch: int
  compile_seconds: float
  latency: Latency
  samples_per_second: float
  memory: int
  flops: float
  network: Latency
  overhead: float
  overhead_error: float
  flops_overhead: float
  operations_overhead: float | None
  scores: Mapping[str, Quality]

  @classmethod
  def of(cls, row: Mapping[str, Any]) -> Self:
    """Make a cost of its fields, as `dataclasses.asdict` gives them."""
    scores = {k: Quality(**v) for k, v in row["scores"].items()}
    times = {k: Latency(**row[k]) for k in ("latency", "network")}
    return cls(**{**row, **times, "scores": scores})


def read_costs(path: pathlib.Path) -> list[Cost]:
  """Read the rows of a `bench.json`.

  Args:
    path: The file; it need not be there.

  Returns:
    The costs; none without a file.

  Raises:
    UsageError: If it is no file of `jaxflow bench`.
  """
  try:
    return [Cost.of(row) for row in json.loads(path.read_text())["rows"]]
  except FileNotFoundError:
    return []
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise UsageError(
      f"{path} cannot be read ({error}): delete it, or run jaxflow bench again"
    ) from error
