"""Likelihood and trajectories by the ODE of a run's velocity."""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any, cast

import jax
import numpy as np

from jaxflow import data, metrics, paths
from jaxflow.errors import RunError, UsageError
from jaxflow.evaluation.streams import Part, choose, labels_of, real_parts
from jaxflow.metrics import Likelihood, Score
from jaxflow.metrics.table import OF_VELOCITIES
from jaxflow.parallel import processes
from jaxflow.plans import Plan
from jaxflow.predictions.conversions import regular_times
from jaxflow.runs.run import Run
from jaxflow.training.state import TrainState
from jaxflow.types import ModelFn, PyTree

_LIKELIHOODS, _TRAJECTORIES = OF_VELOCITIES[:2], OF_VELOCITIES[2:]
# Random streams beside each other: probes, uniform noise of levels, noise.
_PROBES, _LEVELS, _NOISE = range(3)
# Up to so many numbers a sample, the trace is computed and not estimated.
_EXACT = 8
# Nats per number by which a likelihood may change with the steps, and how often
# these are doubled until it does not.
_TOLERANCE, _DOUBLINGS = 0.05, 3

# Samples [N, ...] and their labels [N] or None.
Samples = tuple[np.ndarray, PyTree]


def flow_scores(
  run: Run,
  state: TrainState,
  *,
  names: Collection[str] | None = None,
  left_out: Callable[[str, str], None] | None = None,
) -> dict[str, Score]:
  """Compute likelihood, straightness, curvature and truncation.

  Likelihoods are those of the network without guidance; of held-out samples,
  beside those that it has of training data, or those of the true distribution
  where that is known. Trajectories are as the run is sampled, by Euler steps.
  `left_out` takes the name of a number that cannot be computed or trusted, and
  the reason; None raises an error.
  """
  plan = run.plan
  wanted = wanted_numbers(plan, names)
  if not wanted:
    return {}
  # Each process computes alike, on a device of its own.
  params = processes.gather(run.select(state, plan.sample.ema))
  held, others = processes.together(lambda: _samples(plan))
  found: dict[str, Score] = {}
  for group, compute in (
    (_LIKELIHOODS, lambda: _likelihoods(run, params, held, others)),
    (_TRAJECTORIES, lambda: _path_scores(run, params, held[1])),
  ):
    asked = [name for name in group if name in wanted]
    try:
      scores = compute() if asked else {}
      found |= {name: scores[name] for name in asked}
    except (UsageError, RunError) as error:
      if left_out is None:
        raise
      for name in asked:
        left_out(name, str(error))
  return found


def wanted_numbers(plan: Plan, names: Collection[str] | None) -> list[str]:
  """Return which of these numbers to compute, by names of any metrics or None.

  None takes all that apply; of a name that does not, it raises UsageError.
  """
  options, reasons = plan.evaluation.flow, {}
  if not plan.model.method.teaches:
    why = f"the network of {plan.model.name!r} is no velocity; leave it out"
    reasons = dict.fromkeys(OF_VELOCITIES, why)
  elif not options.num:
    why = "evaluation.flow.num=0; give 2 or more"
    reasons = dict.fromkeys(OF_VELOCITIES, why)
  elif not options.levels:
    why = "evaluation.flow.levels=0; give the number of grey values, 256 say"
    reasons = {"bits_per_dimension": why}
  if names is None:
    return [name for name in OF_VELOCITIES if name not in reasons]
  for name in names:
    if name in reasons:
      raise UsageError(f"metric {name!r}: {reasons[name]}")
  return [name for name in OF_VELOCITIES if name in names]


def _likelihoods(
  run: Run, params: Any, held: Samples, others: Samples
) -> dict[str, Score]:
  """Compute likelihoods of held-out samples, beside those of others."""
  plan = run.plan
  levels = plan.evaluation.flow.levels
  nats, times = _settled(run, params, held)
  mixture = data.known_mixture(plan.data.name)
  if mixture is None:
    real = _likelihood(run, params, others, times)
  else:
    real = Likelihood(nll=-mixture.log_density(held[0]), size=nats.size)
  both = {"negative_log_likelihood": (nats.mean, real.mean)}
  if levels:
    bits, real_bits = (x.bits_per_dimension(levels) for x in (nats, real))
    both["bits_per_dimension"] = bits, real_bits
  return {
    name: Score(
      value=found.value,
      error=found.error,
      real=beside.value,
      real_error=beside.error,
      num=len(nats.nll),
      real_num=len(real.nll),
    )
    for name, (found, beside) in both.items()
  }


def _settled(
  run: Run, params: Any, held: Samples
) -> tuple[Likelihood, np.ndarray]:
  """Compute the likelihood in so many steps that it depends on them no more.

  Where the prediction gives no velocity at the end of the path, the likelihood
  must not depend on the last thousandth either. Return it and its times.
  """
  path, times = run.model.path, _times(run.plan)
  found = _likelihood(run, params, held, times)
  first, _ = regular_times(path, run.model.prediction)
  if first != path.t_min:
    rest = np.append(times[times > first], first)
    cut: Any = dataclasses.replace(cast(Any, path), t_min=first)
    other = _likelihood(run, params, held, rest, path=cut)
    if _apart(found, other) > _TOLERANCE:
      raise RunError(
        f"negative_log_likelihood={found.mean.value:.4g} nats, and "
        f"{other.mean.value:.4g} without t < {first:g}: the velocity of a "
        f"prediction of {run.model.prediction} divides the network's errors by "
        "noise near data; train with another prediction"
      )
  before = _likelihood(run, params, held, np.append(times[:-1:2], times[-1]))
  for _ in range(_DOUBLINGS):
    if _apart(found, before) <= _TOLERANCE:
      return found, times
    middle = (times[1:] + times[:-1]) / 2
    times = np.sort(np.concatenate([times, middle]))[::-1]
    before, found = found, _likelihood(run, params, held, times)
  if _apart(found, before) > _TOLERANCE:
    steps = len(times) - 1
    raise RunError(
      f"negative_log_likelihood={before.mean.value:.4g} nats in {steps // 2} "
      f"steps, and {found.mean.value:.4g} in {steps}: raise "
      "evaluation.flow.steps"
    )
  return found, times


def _apart(a: Likelihood, b: Likelihood) -> float:
  """Return the mean distance of likelihoods in nats per number."""
  return float(np.abs(a.nll - b.nll).mean()) / a.size


def _times(plan: Plan) -> np.ndarray:
  """Return the times of `sample.grid`, from noise to data, `[steps + 1]`."""
  steps = plan.evaluation.flow.steps
  path = plan.model.path
  first, last = path.t_max, path.t_min
  if not np.isfinite(paths.coefficients(path, jax.numpy.asarray(last))).all():
    raise UsageError(
      f"path.t_min={last:g}: the velocity is infinite there, so its ODE cannot "
      "end; train with path.t_min=0.001"
    )
  try:
    times = np.asarray(plan.sample.grid(steps + 1), np.float64)
    ends = times[[0, -1]]
    if (np.diff(times) >= 0).any() or not np.allclose(
      ends, (first, last), rtol=1e-5, atol=1e-7
    ):
      raise ValueError(
        f"its times go from {ends[0]:g} to {ends[1]:g}, those of the ODE "
        f"decrease from {first:g} to {last:g}"
      )
  except ValueError as error:
    raise UsageError(
      f"sample.grid={plan.sample.record['sample']['grid']} with "
      f"evaluation.flow.steps={steps}: {error}; take another grid, or set "
      "evaluation.flow.num=0"
    ) from error
  return times


def _samples(plan: Plan) -> tuple[Samples, Samples]:
  """Read random samples of both splits, and their labels."""

  def read(part: Part) -> Samples:
    index = choose(part, plan.evaluation.flow.num, plan.seed)
    return part.source.take(index)["data"], labels_of(part.source, index)

  held, others = real_parts(plan)
  return read(held), read(others)


def _likelihood(
  run: Run,
  params: Any,
  held: Samples,
  times: np.ndarray,
  *,
  path: paths.Path | None = None,
) -> Likelihood:
  """Compute the likelihood of samples, dequantised where they have levels."""
  options, seed = run.plan.evaluation, run.plan.seed
  samples, labels = held
  if options.flow.levels:
    key = _key(seed, _LEVELS)
    dequantised = metrics.dequantise(key, samples, options.flow.levels)
    samples = np.asarray(dequantised)
  return metrics.negative_log_likelihood(
    _velocity(run.model.network_fn, params),
    samples,
    _key(seed, _PROBES),
    path=path or run.model.path,
    times=times,
    law="exact" if samples[0].size <= _EXACT else "rademacher",
    probes=options.flow.probes,
    batch_size=options.batch_size,
    cond=labels,
  )


def _path_scores(run: Run, params: Any, labels: PyTree) -> dict[str, Score]:
  """Compute the scores of trajectories."""
  found = _trajectories(run, params, labels, _times(run.plan))
  num = run.plan.evaluation.flow.num
  return {
    name: Score(value=x.value, error=x.error, num=num)
    for name, x in found.estimates().items()
  }


def _trajectories(
  run: Run, params: Any, labels: PyTree, times: np.ndarray
) -> metrics.Trajectories:
  """Follow trajectories as the run is sampled."""
  model, options = run.model, run.plan.evaluation
  shape = options.flow.num, *model.shape
  key = _key(run.plan.seed, _NOISE)
  unit = paths.standard_normal(key, shape, jax.numpy.float32)
  return metrics.trajectories(
    _velocity(model.sampled(run.plan.sample), params),
    np.asarray(paths.start(model.path, unit)),
    times=times,
    batch_size=options.batch_size,
    # There may be fewer real samples than trajectories.
    cond=jax.tree.map(lambda x: x[np.arange(len(unit)) % len(x)], labels),
  )


def _velocity(velocity_of: Callable[[PyTree], ModelFn], params: Any) -> Any:
  """Return the velocity with its parameters as arguments of a program."""

  def velocity(params, xt, t, s, cond):
    return velocity_of(params)(xt, t, s, cond)

  return jax.tree_util.Partial(velocity, params)


def _key(seed: int, stream: int) -> jax.Array:
  return jax.random.fold_in(jax.random.key(seed), stream)
