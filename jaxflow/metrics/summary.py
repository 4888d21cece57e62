"""What is kept of a set of samples, generated or real, for all metrics."""

import dataclasses
from collections.abc import Mapping

from numpy.typing import NDArray

from jaxflow.errors import UsageError
from jaxflow.metrics.confidences import Confidences
from jaxflow.metrics.moments import Moments


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleSummary:
  """N samples: the first K of them as they are, all of them as sums.

  Attributes:
    num: N.
    samples: the first K, [K, ...], or None.
    label: classes of these, whole numbers [K], or None.
    features: of these, by network, [K, D].
    moments: of all N, by network; of spatial features under
      "<network>_spatial".
    confidences: of all N, by network.
    logits: of the first K, by network that knows the data's classes, [K, C].

  Raises:
    UsageError: there is no sample, K differs or is above N.

  Example:
    >>> import numpy as np
    >>> SampleSummary(num=3, samples=np.zeros((3, 2))).num_rows
    3
  """

  num: int
  samples: NDArray | None = None
  label: NDArray | None = None
  features: Mapping[str, NDArray] = dataclasses.field(default_factory=dict)
  moments: Mapping[str, Moments] = dataclasses.field(default_factory=dict)
  confidences: Mapping[str, Confidences] = dataclasses.field(
    default_factory=dict
  )
  logits: Mapping[str, NDArray] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
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

  def rows(self) -> dict[str, NDArray]:
    """Return all that has one row for each of the first K, by name."""
    found = {"samples": self.samples, "labels": self.label}
    for kind in ("features", "logits"):
      named = getattr(self, kind)
      found |= {f"{kind} of {name}": rows for name, rows in named.items()}
    return {name: rows for name, rows in found.items() if rows is not None}
