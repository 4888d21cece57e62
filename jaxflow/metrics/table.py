"""Every metric of samples: a function of arrays, and a row of METRICS.

The name of a metric that looks through a network ends in the network's name:
`fd_<network>` is one row and `fd_digits` a number. Those of the true Inception
have the short names of the literature.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal, cast

from numpy.typing import NDArray

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
  """A number of two sets of samples.

  Attributes:
    compute: the number, from both sets as seen through one network or none.
    needs: what must be there, entries of `inputs.NEEDS`; the first is the space
      that the metric looks at.
    better: which direction.
    least: how many samples of each set it takes.
    neighbours: it takes k more.
    network: the network of a name that names none.
    instead: left out, unless asked for, where a network sees the samples.
  """

  compute: Callable[[MetricInputs], Estimate]
  needs: tuple[str, ...]
  better: Literal["lower", "higher"]
  min_samples: int = 2
  neighbours: bool = False
  network: str = ""
  skip_with_network: bool = False


def _recognised(inputs: MetricInputs) -> Estimate:
  """Ask a classifier of the reference about generated samples."""
  generated, reference = inputs.points
  label, known = inputs.generated.label, inputs.reference.label
  classifier = NeighbourClassifier(reference, cast(NDArray, known), inputs.k)
  return classifier.accuracy(generated, cast(NDArray, label))


def _accuracy(inputs: MetricInputs) -> Estimate:
  """Ask a network about generated samples."""
  logits = inputs.generated.logits[inputs.network]
  return class_accuracy(logits, cast(NDArray, inputs.generated.label))


def _frechet(inputs: MetricInputs, suffix: str = "") -> Estimate:
  """Compare moments; spatial features are not kept, so have no rows."""
  name = f"{inputs.network}{suffix}"
  rows = (None, None) if suffix else inputs.rows
  return frechet_distance(
    inputs.generated.moments[name],
    inputs.reference.moments[name],
    rows_a=rows[0],
    rows_b=rows[1],
  )


def _kid(inputs: MetricInputs) -> Estimate:
  """Compare features of a network."""
  return kernel_distance(*inputs.points, seed=inputs.seed)


def _inception_score(inputs: MetricInputs) -> Estimate:
  """Read the sums of a network's confidences."""
  return inception_score(inputs.generated.confidences[inputs.network])


def _mode_coverage(inputs: MetricInputs) -> Estimate:
  """Compare generated samples with the known mixture."""
  samples, mixture = cast(NDArray, inputs.generated.samples), inputs.mixture
  return mode_coverage(samples, cast(Mixture, mixture), seed=inputs.seed)


def _high_quality(inputs: MetricInputs) -> Estimate:
  """Compare generated samples with the known mixture."""
  samples, mixture = cast(NDArray, inputs.generated.samples), inputs.mixture
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
"""Every metric, in the order of printing."""


def row_of(name: str) -> str | None:
  """Return the name of the row that a number belongs to, None for no row.

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
