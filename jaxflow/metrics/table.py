"""METRICS: every metric of samples is one row; add a metric here.

1. Write a function of arrays that returns an `Estimate`, in a file of its own.
2. Write a row: `compute` takes the arrays from `MetricInputs`, `needs` names
   the entries of `inputs.NEEDS` that the metric requires.
3. A name with "<network>" stands for one number per feature network, such as
   `fd_digits`. Metrics of the published Inception have the usual short names.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal, cast

import numpy as np

from jaxflow.metrics.assignments import wasserstein
from jaxflow.metrics.classification import NeighbourClassifier, class_accuracy
from jaxflow.metrics.confidences import inception_score
from jaxflow.metrics.distances import energy_distance, sliced_wasserstein
from jaxflow.metrics.estimates import Estimate
from jaxflow.metrics.frechet import frechet_distance
from jaxflow.metrics.inputs import MetricInputs
from jaxflow.metrics.kernels import gaussian_mmd, kernel_distance
from jaxflow.metrics.mixtures import Mixture, high_quality, mode_coverage

INCEPTION = "inception"
NETWORK = "<network>"


@dataclasses.dataclass(frozen=True, kw_only=True)
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
  min_samples: int = 2
  neighbours: bool = False
  network: str = ""
  skip_with_network: bool = False


def _recognised(inputs: MetricInputs) -> Estimate:
  """Compute the accuracy of a classifier of the reference."""
  generated, reference = inputs.points
  label, known = inputs.generated.label, inputs.reference.label
  classifier = NeighbourClassifier(reference, cast(np.ndarray, known), inputs.k)
  return classifier.accuracy(generated, cast(np.ndarray, label))


def _accuracy(inputs: MetricInputs) -> Estimate:
  """Compute the accuracy of a network's logits."""
  logits = inputs.generated.logits[inputs.network]
  return class_accuracy(logits, cast(np.ndarray, inputs.generated.label))


def _frechet(inputs: MetricInputs, suffix: str = "") -> Estimate:
  """Compare moments; spatial features are not kept as rows."""
  name = f"{inputs.network}{suffix}"
  rows = (None, None) if suffix else inputs.rows
  return frechet_distance(
    inputs.generated.moments[name],
    inputs.reference.moments[name],
    rows_a=rows[0],
    rows_b=rows[1],
  )


def _kid(inputs: MetricInputs) -> Estimate:
  """Compute the kernel distance of features."""
  return kernel_distance(*inputs.points, seed=inputs.seed)


def _inception_score(inputs: MetricInputs) -> Estimate:
  """Compute the score of a network's confidences."""
  return inception_score(inputs.generated.confidences[inputs.network])


def _mode_coverage(inputs: MetricInputs) -> Estimate:
  """Compute the mode coverage of generated samples."""
  samples, mixture = cast(np.ndarray, inputs.generated.samples), inputs.mixture
  return mode_coverage(samples, cast(Mixture, mixture), seed=inputs.seed)


def _high_quality(inputs: MetricInputs) -> Estimate:
  """Compute the share of generated samples near a mode."""
  samples, mixture = cast(np.ndarray, inputs.generated.samples), inputs.mixture
  return high_quality(samples, cast(Mixture, mixture))


_SHARES: Mapping[str, Callable[[MetricInputs], Estimate]] = {
  "precision": lambda inputs: inputs.precision_recall.precision,
  "recall": lambda inputs: inputs.precision_recall.recall,
  "density": lambda inputs: inputs.precision_recall.density,
  "coverage": lambda inputs: inputs.precision_recall.coverage,
}

METRICS: Mapping[str, Metric] = {
  "recognised": Metric(
    compute=_recognised,
    needs=("samples", "classes"),
    better="higher",
    min_samples=1,
    neighbours=True,
  ),
  f"accuracy_{NETWORK}": Metric(
    compute=_accuracy, needs=("logits", "labels"), better="higher"
  ),
  "sliced_wasserstein": Metric(
    compute=lambda s: sliced_wasserstein(*s.points, seed=s.seed),
    needs=("samples",),
    better="lower",
  ),
  "energy_distance": Metric(
    compute=lambda s: energy_distance(*s.points),
    needs=("samples",),
    better="lower",
  ),
  "mmd": Metric(
    compute=lambda s: gaussian_mmd(*s.points),
    needs=("samples",),
    better="lower",
  ),
  "wasserstein": Metric(
    compute=lambda s: wasserstein(*s.points),
    needs=("few numbers",),
    better="lower",
  ),
  "fid": Metric(
    compute=_frechet, needs=("moments",), better="lower", network=INCEPTION
  ),
  "sfid": Metric(
    compute=lambda s: _frechet(s, "_spatial"),
    needs=("spatial moments",),
    better="lower",
    network=INCEPTION,
  ),
  f"fd_{NETWORK}": Metric(compute=_frechet, needs=("moments",), better="lower"),
  "kid": Metric(
    compute=_kid,
    needs=("features",),
    better="lower",
    min_samples=20,
    network=INCEPTION,
  ),
  f"kid_{NETWORK}": Metric(
    compute=_kid, needs=("features",), better="lower", min_samples=20
  ),
  "inception_score": Metric(
    compute=_inception_score,
    needs=("confidences",),
    better="higher",
    min_samples=10,
    network=INCEPTION,
  ),
  **{
    name: Metric(
      compute=compute,
      needs=("samples",),
      better="higher",
      min_samples=1,
      neighbours=True,
      skip_with_network=True,
    )
    for name, compute in _SHARES.items()
  },
  **{
    f"{name}_{NETWORK}": Metric(
      compute=compute,
      needs=("features",),
      better="higher",
      min_samples=1,
      neighbours=True,
    )
    for name, compute in _SHARES.items()
  },
  "mode_coverage": Metric(
    compute=_mode_coverage, needs=("mixture",), better="higher"
  ),
  "high_quality": Metric(
    compute=_high_quality, needs=("mixture",), better="higher"
  ),
}
"""Every metric, in the order in which they are printed."""


def row_of(name: str) -> str | None:
  """Return the key in METRICS of a metric's name, or None.

  Example:
    >>> row_of("fd_digits"), row_of("fid"), row_of("fidd")
    ('fd_<network>', 'fid', None)
  """
  if name in METRICS:
    return name
  for row in METRICS:
    prefix = row.removesuffix(NETWORK)
    if prefix != row and name.startswith(prefix) and name != prefix:
      return row
  return None
