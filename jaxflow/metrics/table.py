"""METRICS: every metric of samples is one row; add a metric here.

1. Write a function of arrays that returns an `Estimate`.
2. Write a row: `compute` takes the arrays from `MetricInputs`, `needs` names
   the entries of `inputs.NEEDS` that the metric requires.
3. A name with "<network>" stands for one number per feature network, such as
   `fd_digits`. Metrics of the published Inception have the usual short names.
"""

import dataclasses
import operator
from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

import numpy as np

from jaxflow import plugins
from jaxflow.errors import UsageError, did_you_mean, named
from jaxflow.metrics.classification import NeighbourClassifier, class_accuracy
from jaxflow.metrics.confidences import inception_score
from jaxflow.metrics.distances import sliced_wasserstein, wasserstein
from jaxflow.metrics.estimates import Estimate
from jaxflow.metrics.inputs import MetricInputs
from jaxflow.metrics.kernels import (
  energy_distance,
  gaussian_mmd,
  kernel_distance,
)
from jaxflow.metrics.mixtures import high_quality, mode_coverage
from jaxflow.metrics.moments import frechet_distance

T = TypeVar("T")

INCEPTION = "inception"
NETWORK = "<network>"

# Numbers of a velocity, not of a set of samples; lower is better.
OF_VELOCITIES: tuple[str, ...] = (
  *("negative_log_likelihood", "bits_per_dimension"),
  *("straightness", "curvature", "truncation"),
)


@dataclasses.dataclass(frozen=True)
class Metric:
  """One row of the table.

  Attributes:
    compute: computes the metric from its inputs.
    needs: required inputs, entries of `inputs.NEEDS`; the first names the space
      in which samples are compared.
    better: the direction of improvement.
    min_samples: minimal number of samples in each set.
    neighbours: whether `min_samples` grows by k.
    network: the network of a name without "<network>".
    skip_with_network: skip the metric, unless it is named, if there are
      features of a network.
  """

  compute: Callable[[MetricInputs], Estimate]
  needs: tuple[str, ...]
  better: Literal["lower", "higher"]
  _: dataclasses.KW_ONLY
  min_samples: int = 2
  neighbours: bool = False
  network: str = ""
  skip_with_network: bool = False


def _given(value: T | None) -> T:
  """Return an input that is there, because the metric needs it."""
  assert value is not None
  return value


def _recognised(inputs: MetricInputs) -> Estimate:
  """Compute the accuracy of a classifier of the reference."""
  generated, reference = inputs.points
  known = _labelled(reference, inputs.reference.label)
  classifier = NeighbourClassifier(*known, inputs.k)
  return classifier.accuracy(*_labelled(generated, inputs.generated.label))


def _labelled(
  rows: np.ndarray, label: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
  """Return the rows that have a class, and the classes."""
  classes = _given(label)
  return rows[classes >= 0], classes[classes >= 0]


def _frechet(inputs: MetricInputs, suffix: str = "") -> Estimate:
  """Compare moments; spatial features are not kept as rows."""
  name = f"{inputs.network}{suffix}"
  a, b = (None, None) if suffix else inputs.rows
  moments_a, moments_b = inputs.generated.moments, inputs.reference.moments
  return frechet_distance(moments_a[name], moments_b[name], rows_a=a, rows_b=b)


def _kid(inputs: MetricInputs) -> Estimate:
  """Compute the kernel distance of features."""
  return kernel_distance(*inputs.points, seed=inputs.seed)


METRICS: Mapping[str, Metric] = {
  "recognised": Metric(
    _recognised,
    ("samples", "classes"),
    "higher",
    min_samples=1,
    neighbours=True,
  ),
  f"accuracy_{NETWORK}": Metric(
    lambda s: class_accuracy(
      *_labelled(s.generated.logits[s.network], s.generated.label)
    ),
    ("logits", "labels"),
    "higher",
  ),
  "sliced_wasserstein": Metric(
    lambda s: sliced_wasserstein(*s.points, seed=s.seed), ("samples",), "lower"
  ),
  "energy_distance": Metric(
    lambda s: energy_distance(*s.points), ("samples",), "lower"
  ),
  "mmd": Metric(lambda s: gaussian_mmd(*s.points), ("samples",), "lower"),
  "wasserstein": Metric(
    lambda s: wasserstein(*s.points), ("few numbers",), "lower"
  ),
  "fid": Metric(_frechet, ("moments",), "lower", network=INCEPTION),
  "sfid": Metric(
    lambda s: _frechet(s, "_spatial"),
    ("spatial moments",),
    "lower",
    network=INCEPTION,
  ),
  f"fd_{NETWORK}": Metric(_frechet, ("moments",), "lower"),
  "kid": Metric(
    _kid, ("features",), "lower", min_samples=20, network=INCEPTION
  ),
  f"kid_{NETWORK}": Metric(_kid, ("features",), "lower", min_samples=20),
  "inception_score": Metric(
    lambda s: inception_score(s.generated.confidences[s.network]),
    ("confidences",),
    "higher",
    min_samples=10,
    network=INCEPTION,
  ),
  **{
    f"{name}{suffix}": Metric(
      operator.attrgetter(f"precision_recall.{name}"),
      (space,),
      "higher",
      min_samples=1,
      neighbours=True,
      skip_with_network=not suffix,
    )
    for suffix, space in (("", "samples"), (f"_{NETWORK}", "features"))
    for name in ("precision", "recall", "density", "coverage")
  },
  "mode_coverage": Metric(
    lambda s: mode_coverage(
      _given(s.generated.samples), _given(s.mixture), seed=s.seed
    ),
    ("mixture",),
    "higher",
  ),
  "high_quality": Metric(
    lambda s: high_quality(_given(s.generated.samples), _given(s.mixture)),
    ("mixture",),
    "higher",
  ),
}
"""Every metric, in the order in which they are printed."""


def every_row() -> dict[str, Metric]:
  """Return METRICS, and the rows that programs have registered."""
  return {**METRICS, **plugins.registered("metric")}


def metric_of(row: str) -> Metric:
  """Return a row by its key; raise UsageError if a plug-in has no such row."""
  if row in METRICS:
    return METRICS[row]
  with named(name="metric"):
    metric = plugins.find("metric", row)
  if not isinstance(metric, Metric):
    raise UsageError(
      f"metric={row!r} is of type {type(metric).__name__}: give a "
      "jaxflow.metrics.Metric"
    )
  return metric


def place_of(row: str) -> int:
  """Return where a row stands; those by `module:object` stand last."""
  known = [*every_row(), *OF_VELOCITIES]
  return known.index(row) if row in known else len(known)


def row_of(name: str) -> str | None:
  """Return the key in `every_row` of a metric's name, or None.

  An object of a plug-in, `module:object`, is a row by that name.

  Example:
    >>> row_of("fd_digits"), row_of("fid"), row_of("fidd")
    ('fd_<network>', 'fid', None)
  """
  if plugins.is_dotted(name):
    metric_of(name)
    return name
  if name in every_row():
    return name
  for row in every_row():
    prefix = row.removesuffix(NETWORK)
    if prefix != row and name.startswith(prefix) and name != prefix:
      return row
  return None


def known_row(name: str) -> str:
  """Return `row_of` a metric of samples; raise UsageError if there is none."""
  row = row_of(name)
  if row is None:
    every = [*every_row(), *OF_VELOCITIES]
    raise UsageError(
      f"metric {name!r} is unknown: {did_you_mean(name, every)}choose among "
      f"{', '.join(every)}"
    )
  return row


def asks_class(name: str) -> bool:
  """Say whether a metric asks for the class of a sample.

  Example:
    >>> asks_class("accuracy_digits"), asks_class("fid")
    (True, False)
  """
  return bool({"labels", "classes"} & set(metric_of(known_row(name)).needs))


def of_velocity(name: str) -> bool:
  """Say whether a number is of a velocity, not of samples.

  Example:
    >>> of_velocity("curvature"), of_velocity("recall")
    (True, False)
  """
  return name in OF_VELOCITIES


def sees_images(name: str) -> bool:
  """Say whether a metric is of what a network sees.

  Example:
    >>> sees_images("fid"), sees_images("recall")
    (True, False)
  """
  if of_velocity(name):
    return False
  row = known_row(name)
  return NETWORK in row or bool(metric_of(row).network)


def direction(name: str) -> str:
  """Return which direction of a number is better, "lower" or "higher".

  Raises:
    UsageError: There is no such number.

  Example:
    >>> direction("fd_digits"), direction("recall")
    ('lower', 'higher')
  """
  return "lower" if of_velocity(name) else metric_of(known_row(name)).better
