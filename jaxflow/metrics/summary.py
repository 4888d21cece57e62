"""The summary of a set of samples from which all metrics are computed."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from jaxflow.errors import UsageError
from jaxflow.metrics.confidences import Confidences
from jaxflow.metrics.moments import Moments


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleSummary:
  """N generated or real samples: K of them as rows, all of them as sums.

  Attributes:
    num: number of samples N.
    samples: the first K samples, [K, ...], or None.
    label: their classes, whole numbers [K], -1 where there is none, or None.
    features: their features by network, [K, D].
    moments: moments of all N samples' features by network; those of spatial
      features have the key "<network>_spatial".
    confidences: class probabilities of all N samples by network.
    logits: logits of the first K samples, [K, C], by network that was trained
      on the data's classes.

  Raises:
    UsageError: N < 1, K > N, or numbers of rows differ.

  Example:
    >>> SampleSummary(num=3, samples=np.zeros((3, 2))).num_rows
    3
  """

  num: int
  samples: np.ndarray | None = None
  label: np.ndarray | None = None
  features: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  moments: Mapping[str, Moments] = dataclasses.field(default_factory=dict)
  confidences: Mapping[str, Confidences] = dataclasses.field(
    default_factory=dict
  )
  logits: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

  def __post_init__(self) -> None:
    if self.num < 1:
      raise UsageError(f"num={self.num}: give at least 1 sample")
    counts = {name: len(rows) for name, rows in self.rows().items()}
    if len(set(counts.values())) > 1 or self.num_rows > self.num:
      parts = ", ".join(f"{count} {name}" for name, count in counts.items())
      raise UsageError(
        f"num={self.num}: {parts}; keep as many of each, and at most num"
      )

  @property
  def num_rows(self) -> int:
    """K, the number of samples that are kept as rows."""
    return max(map(len, self.rows().values()), default=0)

  def rows(self) -> dict[str, np.ndarray]:
    """Return every array with one row for each of the K samples, by name."""
    found = {"samples": self.samples, "labels": self.label}
    found |= {f"features of {name}": x for name, x in self.features.items()}
    found |= {f"logits of {name}": x for name, x in self.logits.items()}
    return {name: rows for name, rows in found.items() if rows is not None}
