"""Compile samplers, and time them beside their network calls."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence

import jax

from jaxflow import compilation, reports
from jaxflow.compilation import Program, Report
from jaxflow.errors import UsageError
from jaxflow.parallel import processes, sharding
from jaxflow.reports import Cost, Latency, Quality
from jaxflow.reports.sampled_runs import SampledRun
from jaxflow.types import Array

__all__ = ["TimedSampler", "sampler_costs"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimedSampler:
  """A sampler whose costs are measured.

  Attributes:
    sampled: The run.
    nfe: Network calls per sample.
    scores: Known quality of its samples, by metric.
  """

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
  mesh: jax.sharding.Mesh,
  *,
  seconds: float,
  say: Callable[[str], None],
) -> list[Cost]:
  """Return the cost of each sampler, timed in turns at one batch size.

  Args:
    samplers: The samplers.
    batch: Samples at a time.
    mesh: The devices.
    seconds: How long to time all of them together.
    say: Prints a line.

  Raises:
    UsageError: If such a batch does not fit into memory.
  """
  begin = time.perf_counter()
  make = functools.partial(_compiled, batch=batch, mesh=mesh)
  compiled = [make(compilation.sampler_program, x) for x in samplers]
  firsts = {x.sampled.role: x for x in reversed(samplers)}
  networks = {
    k: make(compilation.network_program, x) for k, x in firsts.items()
  }
  programs = dict(enumerate(compiled)) | networks
  spent = time.perf_counter() - begin
  say(f"batch {batch}: {len(programs)} programs compiled in {spent:.0f} s")
  laps = reports.time_together(
    {name: program.call for name, program in programs.items()},
    seconds=seconds,
    agree=processes.of_main,
  )
  shards = sharding.row_shards(mesh)
  rows = batch if batch % shards else batch // shards
  costs = []
  for index, sampler in enumerate(samplers):
    plan, role, nfe = sampler.sampled.plan, sampler.sampled.role, sampler.nfe
    network, report = networks[role], compiled[index].report
    latency = Latency.of(laps[index])
    overhead, error = reports.excess(laps[index], laps[role], times=nfe)
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
  program_of: Callable[..., Program],
  sampler: TimedSampler,
  *,
  batch: int,
  mesh: jax.sharding.Mesh,
) -> _Compiled:
  """Return a compiled program of a sampler."""
  sampled = sampler.sampled
  params = sampled.params
  program = program_of(sampled.plan, params, mesh, nfe=sampler.nfe, rows=batch)
  report = compilation.compile_program(program)
  executable = report.executable
  if executable is None:
    raise UsageError(
      f"batch={batch}: takes {report.total} bytes of a device, which has "
      f"{report.limit}; give a smaller one"
    )
  inputs = compilation.example_inputs(program, jax.random.key(0))
  return _Compiled(report=report, call=lambda: executable(params, *inputs))
