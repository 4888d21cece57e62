"""Compare generated samples with real ones by the metrics of the table."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from jaxflow.errors import NotFiniteError, UsageError, did_you_mean
from jaxflow.metrics.estimates import Estimate
from jaxflow.metrics.inputs import NEEDS, MetricInputs
from jaxflow.metrics.mixtures import Mixture
from jaxflow.metrics.points import count_broken
from jaxflow.metrics.summary import SampleSummary
from jaxflow.metrics.table import (
  INCEPTION,
  NETWORK,
  Metric,
  every_row,
  metric_of,
  place_of,
  row_of,
)


def compare(
  generated: SampleSummary,
  reference: SampleSummary,
  *,
  names: Sequence[str] | None = None,
  mixture: Mixture | None = None,
  k: int = 3,
  seed: int = 0,
  left_out: Callable[[str, str], None] | None = None,
) -> dict[str, Estimate]:
  """Compute metrics of generated samples, by name, in the order of METRICS.

  Args:
    generated: the samples to judge.
    reference: real samples to compare them with.
    names: names of METRICS, with a network's name in place of "<network>"; None
      for every metric whose needs are met.
    mixture: the true distribution of the data, or None.
    k: number of neighbours in precision, recall, density, coverage and the
      classifier of `recognised`.
    seed: seed of random directions, blocks and bootstraps.
    left_out: takes the name of each metric that cannot be computed of these
      samples, and the reason; None raises an error.

  Raises:
    UsageError: a name is unknown, a metric's needs are not met, there are too
      few samples, shapes differ, or the reference is not finite.
    NotFiniteError: a generated sample, or a metric, is not finite.

  Example:
    >>> import numpy as np
    >>> draw = np.random.default_rng(0).standard_normal
    >>> a, b = (
    ...   SampleSummary(num=99, samples=draw((99, 2)) + x) for x in (4, 0)
    ... )
    >>> found = compare(a, b, names=["precision", "energy_distance"])
    >>> list(found), found["precision"].value < 0.1
    (['energy_distance', 'precision'], True)
  """
  _check_finite("generated samples", generated, NotFiniteError)
  _check_finite("reference", reference, UsageError)
  networks = sorted(_networks(generated) | _networks(reference) | {INCEPTION})
  plain = MetricInputs(
    generated=generated, reference=reference, mixture=mixture, k=k, seed=seed
  )
  inputs = {
    network: dataclasses.replace(plain, network=network)
    for network in ["", *networks]
  }
  if names is None:
    chosen = _applicable(inputs, few=left_out is not None)
  else:
    chosen = {name: _find(name, inputs) for name in names}
  found = {}
  for name, (row, network) in sorted(
    chosen.items(), key=lambda item: place_of(item[1][0])
  ):
    try:
      found[name] = _compute(metric_of(row), inputs[network])
    except (UsageError, NotFiniteError) as error:
      if left_out is None:
        raise type(error)(f"metric {name!r}: {error}") from error
      left_out(name, str(error))
  return found


def _networks(drawn: SampleSummary) -> set[str]:
  """Collect the names of the networks whose outputs a summary holds."""
  fields = drawn.features, drawn.moments, drawn.confidences, drawn.logits
  return {name.removesuffix("_spatial") for field in fields for name in field}


def _applicable(
  inputs: Mapping[str, MetricInputs], *, few: bool
) -> dict[str, tuple[str, str]]:
  """Return {name: (row, network)} of every metric whose needs are met.

  With `few` those as well that have too few samples.
  """
  has_features = NEEDS["features"].num
  seen = any(has_features(side) for network, side in inputs.items() if network)
  found, known = {}, set()
  for row, metric in every_row().items():
    if metric.skip_with_network and seen:
      continue
    named = NETWORK in row
    for network in filter(None, inputs) if named else [metric.network]:
      # Two rows may give the same number: the first name counts.
      number = metric.compute, network
      has, least = _samples(metric, inputs[network])
      if number not in known and has >= (1 if few else least):
        known.add(number)
        found[row.replace(NETWORK, network)] = row, network
  return found


def _find(name: str, inputs: Mapping[str, MetricInputs]) -> tuple[str, str]:
  """Return row and network of a metric; raise UsageError if it cannot be."""
  row = row_of(name)
  if row is None:
    every = [
      row.replace(NETWORK, network) for row in every_row() for network in inputs
    ]
    raise UsageError(
      f"metric {name!r}: unknown; {did_you_mean(name, every)}choose among "
      f"{', '.join(every)}"
    )
  metric = metric_of(row)
  network = metric.network
  if NETWORK in row:
    network = name.removeprefix(row.removesuffix(NETWORK))
    if network not in inputs:
      there = ", ".join(filter(None, inputs))
      raise UsageError(
        f"metric {name!r}: no network {network!r}; choose among {there}"
      )
  for need in (NEEDS[need] for need in metric.needs):
    if not need.num(inputs[network]):
      by = f" by the network {network!r}" if network else ""
      raise UsageError(f"metric {name!r}: needs {need.text}{by}; leave it out")
  return row, network


def _compute(metric: Metric, inputs: MetricInputs) -> Estimate:
  """Compute one metric."""
  has, least = _samples(metric, inputs)
  if has < least:
    raise UsageError(
      f"{has} samples are too few, it takes at least {least}; draw more or "
      "leave it out"
    )
  estimate = metric.compute(inputs)
  if not all(map(math.isfinite, (estimate.value, estimate.error or 0.0))):
    raise NotFiniteError(f"its value {estimate.value} is not finite")
  if estimate.num is not None:
    return estimate
  streamed = metric.needs[0] in ("moments", "spatial moments", "confidences")
  generated = inputs.generated
  num = generated.num if streamed else generated.num_rows
  return dataclasses.replace(estimate, num=num)


def _samples(metric: Metric, inputs: MetricInputs) -> tuple[int, int]:
  """Return how many samples a metric has, and how many it needs."""
  has = min(NEEDS[need].num(inputs) for need in metric.needs)
  return has, metric.min_samples + metric.neighbours * inputs.k


def _check_finite(
  which: str, drawn: SampleSummary, kind: type[NotFiniteError | UsageError]
) -> None:
  """Raise `kind` if any row is not finite."""
  for name, rows in drawn.rows().items():
    if broken := count_broken(rows):
      raise kind(f"{which}: {broken} of {len(rows)} {name} are not finite")
