"""The inputs of a metric, and the check that its needs are met."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np

from jaxflow.errors import UsageError
from jaxflow.metrics.mixtures import Mixture
from jaxflow.metrics.precision_recall import PrecisionRecall, precision_recall
from jaxflow.metrics.summary import SampleSummary

# In more dimensions the exact Wasserstein distance is mostly bias.
MAX_DIMENSIONS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricInputs:
  """Both sets of samples, and one feature network or none.

  Attributes:
    generated: generated samples, or fresh real ones in their place.
    reference: real samples.
    network: name of the network, "" for the samples themselves.
    mixture: the true distribution of the data, or None.
    k: number of neighbours.
    seed: seed of random directions and blocks.
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
    generated, reference = self.generated, self.reference
    if not self.network:
      return generated.samples, reference.samples
    return (
      generated.features.get(self.network),
      reference.features.get(self.network),
    )

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Need:
  """An input that a metric needs.

  Attributes:
    text: description that completes "needs ...".
    count: returns the number of samples, of the smaller set, that have it.
  """

  text: str
  count: Callable[[MetricInputs], int]


def _moments(suffix: str = "") -> Callable[[MetricInputs], int]:
  """Return the function that counts the samples of the moments."""

  def count(inputs: MetricInputs) -> int:
    both = inputs.generated.moments, inputs.reference.moments
    name = f"{inputs.network}{suffix}"
    return min(part[name].count if name in part else 0 for part in both)

  return count


def _rows(inputs: MetricInputs) -> int:
  """Count the kept rows."""
  return min(map(_length, inputs.rows))


def _few_numbers(inputs: MetricInputs) -> int:
  """Count the kept rows if their dimension is small, otherwise return 0."""
  both = inputs.rows
  if any(
    rows is None or np.prod(rows.shape[1:]) > MAX_DIMENSIONS for rows in both
  ):
    return 0
  return min(map(_length, both))


def _classes(inputs: MetricInputs) -> int:
  """Count labelled samples if the reference has two classes, else return 0."""
  labels = inputs.generated.label, inputs.reference.label
  if labels[1] is None or len(np.unique(labels[1])) < 2:
    return 0
  return min(map(_length, labels))


def _mixture(inputs: MetricInputs) -> int:
  """Count generated samples if the mixture is known, else return 0."""
  return _length(inputs.generated.samples) if inputs.mixture is not None else 0


def _confidences(inputs: MetricInputs) -> int:
  """Count the samples in the sums of a network's confidences."""
  found = inputs.generated.confidences.get(inputs.network)
  return 0 if found is None else int(found.counts.sum())


def _length(rows: np.ndarray | None) -> int:
  """Return the number of rows, 0 for None."""
  return 0 if rows is None else len(rows)


NEEDS: Mapping[str, Need] = {
  "samples": Need(text="samples of both sets", count=_rows),
  "features": Need(text="features of both sets", count=_rows),
  "few numbers": Need(
    text=f"samples of at most {MAX_DIMENSIONS} numbers each", count=_few_numbers
  ),
  "moments": Need(text="moments of both sets", count=_moments()),
  "spatial moments": Need(
    text="moments of spatial features of both sets",
    count=_moments("_spatial"),
  ),
  "confidences": Need(text="the network's confidences", count=_confidences),
  "logits": Need(
    text="the network's logits",
    count=lambda inputs: _length(inputs.generated.logits.get(inputs.network)),
  ),
  "labels": Need(
    text="labels of the samples",
    count=lambda inputs: _length(inputs.generated.label),
  ),
  "classes": Need(
    text="labels of both sets, of two classes or more", count=_classes
  ),
  "mixture": Need(text="data whose mixture is known", count=_mixture),
}
"""The needs of metrics, by the names in `Metric.needs`."""
