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
from jaxflow.reports.sampled_runs import Contestant
from jaxflow.types import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
  """A sampler to be measured.

  Attributes:
    contestant: What samples.
    nfe: Network calls per sample.
    scores: How good its samples are, as far as it is known.
  """

  contestant: Contestant
  nfe: int
  scores: Mapping[str, Quality]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
  """A compiled program with arrays to call it with."""

  report: Report
  call: Callable[[], Array]

  @property
  def operations(self) -> float | None:
    """All arithmetic, as the compiler counts it: loops only once."""
    executable = self.report.executable
    assert executable is not None
    text, analysis = executable.as_text(), executable.cost_analysis()
    if text is None or " while(" in text or not analysis:
      return None
    return analysis.get("flops")


def measure(
  entries: Sequence[Entry],
  rows: int,
  mesh: jax.sharding.Mesh,
  *,
  seconds: float,
  say: Callable[[str], None],
) -> list[Cost]:
  """Measure samplers at one batch size, all of them interleaved.

  Args:
    entries: The samplers.
    rows: Samples at a time.
    mesh: The devices.
    seconds: How long to time all of them together.
    say: Prints a line.

  Returns:
    One cost an entry.

  Raises:
    UsageError: If such a batch does not fit into memory.
  """
  begin = time.perf_counter()
  make = functools.partial(_compiled, rows=rows, mesh=mesh)
  samplers = [make(compilation.sampler_program, entry) for entry in entries]
  firsts = {entry.contestant.role: entry for entry in reversed(entries)}
  networks = {
    role: make(compilation.network_program, entry)
    for role, entry in firsts.items()
  }
  programs = dict(enumerate(samplers)) | networks
  spent = time.perf_counter() - begin
  say(f"batch {rows}: {len(programs)} programs compiled in {spent:.0f} s")
  laps = reports.time_together(
    {name: program.call for name, program in programs.items()},
    seconds=seconds,
    agree=processes.of_main,
  )
  shards = sharding.row_shards(mesh)
  mine = rows if rows % shards else rows // shards
  costs = []
  for index, entry in enumerate(entries):
    role, report = entry.contestant.role, samplers[index].report
    latency = Latency.of(laps[index])
    overhead, error = reports.excess(laps[index], laps[role], times=entry.nfe)
    costs.append(
      Cost(
        model=role,
        method=entry.contestant.run.model.config.method,
        solver=entry.contestant.solver,
        nfe=entry.nfe,
        batch=rows,
        compile_seconds=report.lower_seconds + report.compile_seconds,
        latency=latency,
        samples_per_second=rows / latency.median,
        memory=report.total,
        flops=report.flops / mine,
        network=Latency.of(laps[role]),
        overhead=overhead,
        overhead_error=error,
        flops_overhead=report.flops / (entry.nfe * networks[role].report.flops)
        - 1,
        operations_overhead=_beyond(samplers[index], networks[role], entry.nfe),
        scores=entry.scores,
      )
    )
  return costs


def _compiled(
  program_of: Callable[..., Program],
  entry: Entry,
  *,
  rows: int,
  mesh: jax.sharding.Mesh,
) -> Compiled:
  contestant = entry.contestant
  params = contestant.params
  program = program_of(
    contestant.run.model,
    params,
    mesh,
    nfe=entry.nfe,
    rows=rows,
    field=contestant.field,
  )
  report = compilation.compile_program(program)
  executable = report.executable
  if executable is None:
    raise UsageError(
      f"--batch={rows}: takes {report.total} bytes of a device, which has "
      f"{report.limit}; give a smaller one"
    )
  inputs = compilation.example_inputs(program, jax.random.key(0))
  return Compiled(report=report, call=lambda: executable(params, *inputs))


def _beyond(sampler: Compiled, network: Compiled, nfe: int) -> float | None:
  """Return the arithmetic beyond that of the calls, as a share of theirs."""
  mine, its = sampler.operations, network.operations
  return mine / (nfe * its) - 1 if mine and its else None
