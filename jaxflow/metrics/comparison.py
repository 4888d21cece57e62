"""Compare generated samples with real ones by the metrics of the table."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from jaxflow.errors import NotFiniteError, UsageError, did_you_mean
from jaxflow.metrics.estimates import Estimate
from jaxflow.metrics.inputs import NEEDS, MetricInputs, Need
from jaxflow.metrics.mixtures import Mixture
from jaxflow.metrics.summary import SampleSummary
from jaxflow.metrics.table import INCEPTION, METRICS, NETWORK, Metric, row_of


def compare(
  generated: SampleSummary,
  reference: SampleSummary,
  *,
  names: Sequence[str] | None = None,
  mixture: Mixture | None = None,
  k: int = 3,
  seed: int = 0,
) -> dict[str, Estimate]:
  """Compute metrics of generated samples against real ones.

  Args:
    generated: the samples to judge.
    reference: real samples.
    names: names of METRICS, with a network's name in place of "<network>"; None
      for every metric whose needs are met.
    mixture: the true distribution of the data, or None.
    k: number of neighbours in precision, recall, density, coverage and the
      classifier of `recognised`.
    seed: seed of random directions, blocks and bootstraps.

  Returns:
    An estimate by name, in the order of METRICS.

  Raises:
    UsageError: a name is unknown, a metric's needs are not met, there are too
      few samples, shapes differ, or the reference is not finite.
    NotFiniteError: a generated sample, or a metric, is not finite.

  Example:
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
  inputs = {
    network: MetricInputs(
      generated=generated,
      reference=reference,
      network=network,
      mixture=mixture,
      k=k,
      seed=seed,
    )
    for network in ["", *networks]
  }
  if names is None:
    chosen = _applicable(inputs)
  else:
    chosen = {name: _find(name, inputs) for name in names}
  order = list(METRICS)
  return {
    name: _compute(name, METRICS[row], inputs[network])
    for name, (row, network) in sorted(
      chosen.items(), key=lambda item: order.index(item[1][0])
    )
  }


def _networks(drawn: SampleSummary) -> set[str]:
  """Collect the names of the networks whose outputs a summary holds."""
  fields = drawn.features, drawn.moments, drawn.confidences, drawn.logits
  names = {name.removesuffix("_spatial") for field in fields for name in field}
  return names


def _applicable(
  inputs: Mapping[str, MetricInputs],
) -> dict[str, tuple[str, str]]:
  """Return {name: (row, network)} of every metric whose needs are met."""
  seen = any(
    NEEDS["features"].count(side) for network, side in inputs.items() if network
  )
  found, known = {}, set()
  for row, metric in METRICS.items():
    named = NETWORK in row
    networks = [n for n in inputs if n] if named else [metric.network]
    for network in networks:
      # Two rows may give the same number: the first name counts.
      number = metric.compute, network
      fits = _samples_short(metric, inputs[network]) == 0
      if (
        fits and number not in known and not (metric.skip_with_network and seen)
      ):
        known.add(number)
        found[row.replace(NETWORK, network)] = row, network
  return found


def _find(name: str, inputs: Mapping[str, MetricInputs]) -> tuple[str, str]:
  """Return row and network of a metric; raise UsageError if it cannot be."""
  row = row_of(name)
  if row is None:
    every = [
      row.replace(NETWORK, network) for row in METRICS for network in inputs
    ]
    raise UsageError(
      f"metric {name!r}: unknown; {did_you_mean(name, every)}choose among "
      f"{', '.join(every)}"
    )
  metric = METRICS[row]
  network = metric.network
  if NETWORK in row:
    network = name.removeprefix(row.removesuffix(NETWORK))
    if network not in inputs:
      there = ", ".join(n for n in inputs if n)
      raise UsageError(
        f"metric {name!r}: no network {network!r}; choose among {there}"
      )
  missing = _missing(metric, inputs[network])
  if missing is not None:
    by = f" by the network {network!r}" if network else ""
    raise UsageError(f"metric {name!r}: needs {missing.text}{by}; leave it out")
  return row, network


def _missing(metric: Metric, inputs: MetricInputs) -> Need | None:
  """Return the first need that is not met."""
  needs = [NEEDS[need] for need in metric.needs]
  return next((need for need in needs if not need.count(inputs)), None)


def _compute(name: str, metric: Metric, inputs: MetricInputs) -> Estimate:
  """Compute one metric; begin every error message with its name."""
  if short := _samples_short(metric, inputs):
    least = metric.min_samples + metric.neighbours * inputs.k
    raise UsageError(
      f"metric {name!r}: {least - short} samples are too few, it takes at "
      f"least {least}; draw more or leave it out"
    )
  try:
    estimate = metric.compute(inputs)
  except UsageError as error:
    raise UsageError(f"metric {name!r}: {error}") from error
  if not all(map(math.isfinite, (estimate.value, estimate.error or 0.0))):
    raise NotFiniteError(f"metric {name!r} is not finite: {estimate.value}")
  if estimate.num is not None:
    return estimate
  streamed = metric.needs[0] in ("moments", "spatial moments", "confidences")
  generated = inputs.generated
  num = generated.num if streamed else generated.num_rows
  return dataclasses.replace(estimate, num=num)


def _samples_short(metric: Metric, inputs: MetricInputs) -> int:
  """Return how many samples a metric still needs."""
  num = min(NEEDS[need].count(inputs) for need in metric.needs)
  return max(0, metric.min_samples + metric.neighbours * inputs.k - num)


def _check_finite(
  which: str,
  drawn: SampleSummary,
  kind: type[NotFiniteError] | type[UsageError],
) -> None:
  """Raise `kind` if any row is not finite."""
  for name, rows in drawn.rows().items():
    flat = np.asarray(rows).reshape(len(rows), -1)
    broken = np.count_nonzero(~np.isfinite(flat).all(axis=1))
    if broken:
      raise kind(f"{which}: {broken} of {len(rows)} {name} are not finite")
