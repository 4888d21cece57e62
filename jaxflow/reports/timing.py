"""Compile samplers, and time them beside their network calls.

The speed of a machine drifts with its clock and its other work. So functions
are timed in rounds, each once a round in a new order, and two of them are
compared round by round: a drift meets both, and the median passes over
outliers.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow import compilation
from jaxflow.compilation import Program, Report
from jaxflow.errors import UsageError
from jaxflow.parallel import processes, sharding
from jaxflow.reports.costs import Cost, Latency, Quality
from jaxflow.reports.sampled_runs import SampledRun
from jaxflow.types import Array

K = TypeVar("K", bound=Hashable)


def time_together(
  calls: Mapping[K, Callable[[], Any]],
  *,
  seconds: float = 3.0,
  least: int = 20,
  most: int = 300,
  agree: Callable[[bool], bool] = bool,
) -> dict[K, NDArray[np.float64]]:
  """Return times of functions, called in rounds until results are ready.

  The functions return arrays of JAX. Each is called twice before, so that
  nothing is compiled while it is timed. Rounds go on for `seconds`, but there
  are `least` to `most` of them. All processes of a job must go on equally
  often: `agree` makes one answer of theirs. Times are seconds, `[rounds]`.
  """
  if not 1 <= least <= most:
    raise UsageError(f"least={least}: give 1 to most={most}")
  for call in calls.values():
    jax.block_until_ready(call())
    jax.block_until_ready(call())
  names = list(calls)
  # All processes of a job take the same order.
  order = np.random.default_rng(0)
  laps: dict[K, list[float]] = {name: [] for name in names}
  begin, number = time.perf_counter(), 0
  while number < least or (
    number < most and agree(time.perf_counter() - begin < seconds)
  ):
    for index in order.permutation(len(names)):
      start = time.perf_counter()
      jax.block_until_ready(calls[names[index]]())
      laps[names[index]].append(time.perf_counter() - start)
    number += 1
  return {name: np.array(values) for name, values in laps.items()}


def excess(
  seconds: ArrayLike, reference: ArrayLike, *, times: int = 1
) -> tuple[float, float]:
  """Return how much longer a function takes than calls of another.

  Both arrays, `[N]`, are of the same rounds; `times` calls of the other count.
  The first number is the median of `seconds / (times * reference) - 1`, the
  second the standard error of that median, from the spread between quartiles as
  of a normal law.
  """
  ratio = np.asarray(seconds) / (times * np.asarray(reference)) - 1
  low, middle, high = np.quantile(ratio, [0.25, 0.5, 0.75])
  # Of a normal law the quartiles are 1.349 deviations apart, and the median of
  # N values deviates by sqrt(pi / 2) of what their mean does.
  deviation = (high - low) / 1.349
  return float(middle), float(np.sqrt(np.pi / 2 / len(ratio)) * deviation)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimedSampler:
  """A sampler whose costs are measured, and known metrics of its samples."""

  sampled: SampledRun
  nfe: int
  scores: Mapping[str, Quality]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Compiled:
  """A compiled program with arrays to call it with."""

  report: Report
  call: Callable[[], Array]

  @property
  def operations(self) -> float | None:
    """FLOPs as the compiler counts them; None where there are loops."""
    executable = self.report.executable
    assert executable is not None
    text, analysis = executable.as_text(), executable.cost_analysis()
    if text is None or " while(" in text or not analysis:
      return None
    return analysis.get("flops")


def sampler_costs(
  samplers: Sequence[TimedSampler],
  batch: int,
  *,
  seconds: float,
  log: Callable[[str], None],
) -> list[Cost]:
  """Return the cost of each sampler, timed in turns at one batch size.

  All of them together are timed for so many seconds.
  """
  begin = time.perf_counter()
  make = functools.partial(_compiled, batch=batch)
  compiled = [make(compilation.sampler_program, x) for x in samplers]
  firsts = {x.sampled.role: x for x in reversed(samplers)}
  networks = {
    k: make(compilation.network_program, x) for k, x in firsts.items()
  }
  programs = dict(enumerate(compiled)) | networks
  spent = time.perf_counter() - begin
  log(f"batch {batch}: {len(programs)} programs compiled in {spent:.0f} s")
  laps = time_together(
    {name: program.call for name, program in programs.items()},
    seconds=seconds,
    agree=processes.of_main,
  )
  shards = sharding.row_shards(samplers[0].sampled.mesh)
  rows = batch if batch % shards else batch // shards
  costs = []
  for index, sampler in enumerate(samplers):
    plan, role, nfe = sampler.sampled.plan, sampler.sampled.role, sampler.nfe
    network, report = networks[role], compiled[index].report
    latency = Latency.of(laps[index])
    overhead, error = excess(laps[index], laps[role], times=nfe)
    mine, its = compiled[index].operations, network.operations
    costs.append(
      Cost(
        model=role,
        method=plan.model.name,
        solver=plan.sample.solver,
        nfe=nfe,
        batch=batch,
        compile_seconds=report.lower_seconds + report.compile_seconds,
        latency=latency,
        samples_per_second=batch / latency.median,
        memory=report.total,
        flops=report.flops / rows,
        network=Latency.of(laps[role]),
        overhead=overhead,
        overhead_error=error,
        flops_overhead=report.flops / (nfe * network.report.flops) - 1,
        operations_overhead=mine / (nfe * its) - 1 if mine and its else None,
        scores=sampler.scores,
      )
    )
  return costs


def _compiled(
  program_of: Callable[..., Program], sampler: TimedSampler, *, batch: int
) -> _Compiled:
  """Return a compiled program of a sampler."""
  sampled = sampler.sampled
  plan, params, mesh = sampled.plan, sampled.params, sampled.mesh
  program = program_of(plan, params, mesh, nfe=sampler.nfe, rows=batch)
  report = compilation.compile_program(program)
  executable = report.executable
  if executable is None:
    raise UsageError(
      f"batch={batch}: takes {report.total} bytes of a device, which has "
      f"{report.limit}; give a smaller one"
    )
  inputs = compilation.example_inputs(program, jax.random.key(0))
  return _Compiled(report=report, call=lambda: executable(params, *inputs))
