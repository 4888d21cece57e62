"""Likelihood and trajectories by the ODE of a run's velocity."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxflow import data, metrics, paths
from jaxflow.errors import UsageError
from jaxflow.evaluation.streams import choose, labels_of
from jaxflow.metrics import Estimate, Likelihood, Score
from jaxflow.parallel import processes
from jaxflow.plans import Plan
from jaxflow.runs.inputs import load_data
from jaxflow.runs.run import Run
from jaxflow.training.state import TrainState
from jaxflow.types import ModelFn, PyTree

# Random streams beside each other: probes, uniform noise of levels, noise.
_PROBES, _LEVELS, _NOISE = range(3)
# Up to so many numbers a sample, the trace is computed and not estimated.
_EXACT = 8


def flow_scores(run: Run, state: TrainState) -> dict[str, Score]:
  """Compute likelihood, straightness, curvature and truncation.

  Likelihoods are those of the network without guidance; of held-out samples,
  beside those that it has of training data, or those of the true distribution
  where that is known. Trajectories are as the run is sampled, by Euler steps.

  Return {} where `evaluation.flow.num` is 0 or the network is no velocity.

  Raises:
    UsageError: If the grid of times does not reach from noise to data.
    RunError: If a likelihood or a trajectory is not finite.
  """
  model, plan = run.model, run.plan
  options = plan.evaluation.flow
  if not options.num or not model.method.teaches:
    return {}
  params = run.select(state, plan.sample.ema)
  # Each process computes alike, on a device of its own.
  params = processes.gather(params)
  times = _times(plan)
  split = plan.evaluation.split
  held, labels = _samples(plan, split)
  nats = _likelihood(run, params, held, labels, times)
  mixture = data.known_mixture(plan.data.name)
  if mixture is None:
    others, classes = _samples(plan, "train" if split == "test" else "test")
    real = _likelihood(run, params, others, classes, times)
  else:
    real = Likelihood(nll=-mixture.log_density(held), size=held[0].size)
  scores = {"negative_log_likelihood": _score(nats.mean, real.mean, nats, real)}
  if options.levels:
    bits, real_bits = (
      x.bits_per_dimension(options.levels) for x in (nats, real)
    )
    scores["bits_per_dimension"] = _score(bits, real_bits, nats, real)
  found = _trajectories(run, params, labels, times)
  return scores | {
    name: Score(value=x.value, error=x.error, num=options.num)
    for name, x in found.estimates().items()
  }


def _times(plan: Plan) -> np.ndarray:
  """Return the times of `sample.grid`, from noise to data, `[steps + 1]`."""
  steps = plan.evaluation.flow.steps
  first, last = plan.model.path.t_max, plan.model.path.t_min
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


def _score(
  found: Estimate, beside: Estimate, of: Likelihood, of_real: Likelihood
) -> Score:
  return Score(
    value=found.value,
    error=found.error,
    real=beside.value,
    real_error=beside.error,
    num=len(of.nll),
    real_num=len(of_real.nll),
  )


def _samples(plan: Plan, split: str) -> tuple[np.ndarray, np.ndarray | None]:
  """Read random samples of a split, and their labels."""

  def read():
    source = load_data(plan.data, split)
    index = choose(source, plan.evaluation.flow.num, plan.seed)
    return source.take(index)["data"], labels_of(source, index)

  return processes.together(read)


def _likelihood(
  run: Run,
  params: Any,
  samples: np.ndarray,
  labels: np.ndarray | None,
  times: np.ndarray,
) -> Likelihood:
  """Compute the likelihood of samples, dequantised where they have levels."""
  options, seed = run.plan.evaluation, run.plan.seed
  if options.flow.levels:
    key = _key(seed, _LEVELS)
    dequantised = metrics.dequantise(key, samples, options.flow.levels)
    samples = np.asarray(dequantised)
  return metrics.negative_log_likelihood(
    _velocity(run.model.network_fn, params),
    samples,
    _key(seed, _PROBES),
    path=run.model.path,
    times=times,
    law="exact" if samples[0].size <= _EXACT else "rademacher",
    probes=options.flow.probes,
    batch_size=options.batch_size,
    cond=labels,
  )


def _trajectories(
  run: Run, params: Any, labels: np.ndarray | None, times: np.ndarray
) -> metrics.Trajectories:
  """Follow trajectories as the run is sampled."""
  model, options = run.model, run.plan.evaluation
  shape = options.flow.num, *model.shape
  unit = jax.random.normal(_key(run.plan.seed, _NOISE), shape)
  return metrics.trajectories(
    _velocity(model.sampled(run.plan.sample), params),
    np.asarray(paths.start(model.path, unit)),
    times=times,
    batch_size=options.batch_size,
    cond=None if labels is None else np.resize(labels, len(unit)),
  )


def _velocity(velocity_of: Callable[[PyTree], ModelFn], params: Any) -> Any:
  """Return the velocity with its parameters as arguments of a program."""

  def velocity(params, xt, t, s, cond):
    return velocity_of(params)(xt, t, s, cond)

  return jax.tree_util.Partial(velocity, params)


def _key(seed: int, stream: int) -> jax.Array:
  return jax.random.fold_in(jax.random.key(seed), stream)
