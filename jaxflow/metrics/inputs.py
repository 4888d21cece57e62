"""The inputs of a metric, and the check that its needs are met."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from jaxflow.errors import UsageError
from jaxflow.metrics.mixtures import Mixture
from jaxflow.metrics.neighbours import PrecisionRecall, precision_recall
from jaxflow.metrics.summary import SampleSummary

# In more dimensions the exact Wasserstein distance is mostly bias.
MAX_DIMENSIONS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricInputs:
  """The arguments of `compare`, and the name of one feature network.

  The name is "" for the samples themselves.
  """

  generated: SampleSummary
  reference: SampleSummary
  network: str = ""
  mixture: Mixture | None = None
  k: int = 3
  seed: int = 0

  @property
  def rows(self) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The kept features of the network, or the kept samples, of both sets."""
    a, b = self.generated, self.reference
    if not self.network:
      return a.samples, b.samples
    return a.features.get(self.network), b.features.get(self.network)

  @property
  def points(self) -> tuple[np.ndarray, np.ndarray]:
    """The rows of both sets; raises UsageError unless their shapes agree."""
    generated, reference = self.rows
    if generated is None or reference is None:
      raise UsageError("no rows are kept; keep some of both sets")
    if generated.shape[1:] != reference.shape[1:]:
      raise UsageError(
        f"a generated row has shape {generated.shape[1:]} and one of the "
        f"reference {reference.shape[1:]}; make both alike"
      )
    return generated, reference

  @functools.cached_property
  def precision_recall(self) -> PrecisionRecall:
    """Precision, recall, density and coverage, computed once for all four.

    Balls are larger for fewer samples, so both sets are cut to the same number.
    """
    generated, reference = self.points
    num = min(len(generated), len(reference))
    return precision_recall(
      reference[:num], generated[:num], self.k, seed=self.seed
    )


class Need(NamedTuple):
  """An input that a metric needs: `text` completes "needs ...".

  `num` returns the number of samples, of the smaller set, that have it.
  """

  text: str
  num: Callable[[MetricInputs], int]


def _least(*arrays: np.ndarray | None) -> int:
  """Return the number of rows of the shortest array, 0 for None."""
  return min(0 if rows is None else len(rows) for rows in arrays)


def _few_numbers(inputs: MetricInputs) -> int:
  """Count the kept rows if their dimension is small, otherwise return 0."""
  small = all(
    rows is not None and np.prod(rows.shape[1:]) <= MAX_DIMENSIONS
    for rows in inputs.rows
  )
  return _least(*inputs.rows) if small else 0


def _moments(inputs: MetricInputs, suffix: str = "") -> int:
  """Count the samples of the moments."""
  both = inputs.generated.moments, inputs.reference.moments
  name = f"{inputs.network}{suffix}"
  return min(part[name].count if name in part else 0 for part in both)


def _confidences(inputs: MetricInputs) -> int:
  """Count the samples in the sums of a network's confidences."""
  found = inputs.generated.confidences.get(inputs.network)
  return 0 if found is None else int(found.counts.sum())


def _classes(inputs: MetricInputs) -> int:
  """Count labelled samples if the reference has two classes, else return 0."""
  both = inputs.reference.label, inputs.generated.label
  known = both[0]
  if known is None or len(np.unique(known[known >= 0])) < 2:
    return 0
  return min(map(_labelled, both))


def _labelled(label: np.ndarray | None) -> int:
  """Count the samples that have a class."""
  return 0 if label is None else int((label >= 0).sum())


NEEDS: Mapping[str, Need] = {
  "samples": Need("samples of both sets", lambda x: _least(*x.rows)),
  "features": Need("features of both sets", lambda x: _least(*x.rows)),
  "few numbers": Need(
    f"samples of at most {MAX_DIMENSIONS} numbers each", _few_numbers
  ),
  "moments": Need("moments of both sets", _moments),
  "spatial moments": Need(
    "moments of spatial features of both sets",
    lambda x: _moments(x, "_spatial"),
  ),
  "confidences": Need("the network's confidences", _confidences),
  "logits": Need(
    "the network's logits", lambda x: _least(x.generated.logits.get(x.network))
  ),
  "labels": Need(
    "labels of the samples", lambda x: _labelled(x.generated.label)
  ),
  "classes": Need("labels of both sets, of two classes or more", _classes),
  "mixture": Need(
    "data whose mixture is known",
    lambda x: _least(x.generated.samples) if x.mixture is not None else 0,
  ),
}
"""The needs of metrics, by the names in `Metric.needs`."""
