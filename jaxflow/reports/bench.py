"""Measure the cost of sampling from a run, beside its network calls.

`bench.json` holds

  schema   1
  method, data, step
           of the run
  device   kind, platform and number of the devices
  jax      version
  compared number of samples whose sliced Wasserstein distance was measured;
           null where the data were not there
  rows     a mapping for each model, NFE and batch: the fields of
           `reports.costs.Cost`; times in seconds, memory in bytes
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxflow.errors import UsageError, named
from jaxflow.files import check_workdir, write_text
from jaxflow.parallel import compile_cache, processes
from jaxflow.reports.costs import Cost, Quality, save_tradeoff, shared_metric
from jaxflow.reports.quality import DataDistance, evaluated_scores
from jaxflow.reports.sampled_runs import (
  SampledRun,
  open_run,
  other_run,
  teacher_of,
)
from jaxflow.reports.timing import TimedSampler, sampler_costs
from jaxflow.runs.drawing import check_num

NFE = (1, 2, 4, 8)
BATCH = (1, 8, 64)


def bench(
  workdir: pathlib.Path,
  *,
  nfe: tuple[int, ...] = (),
  batch: tuple[int, ...] = (),
  teacher: pathlib.Path | None = None,
  teacher_nfe: tuple[int, ...] = (),
  seconds: float = 3.0,
  log: Callable[[str], None] = print,
) -> list[Cost]:
  """Measure samplers of a run and of its teacher; write `bench.json`.

  `bench.png` shows quality against latency, where all have a metric. The
  teacher's solver is the one whose samples are nearest to held-out data with as
  many calls.

  The calls per sample are by default those of `NFE` that its sampler can make,
  or else the plan's; the teacher's are the run's. `teacher` is the folder of
  another run, by default the one in the run's own checkpoint. The samplers of a
  batch are timed for so many seconds.
  """
  student = open_run(workdir, frozen=() if teacher else ("teacher",))
  for size in batch:
    with named(num="batch"):
      check_num(size, student.plan.model.shape)
  for count in nfe:
    student.run.make_sampler(count)
  if teacher is None:
    teacher_run = teacher_of(student)
  else:
    with named(workdir="teacher"):
      teacher_run = other_run(teacher, student)
  if teacher_nfe and teacher_run is None:
    raise UsageError(
      f"teacher_nfe={','.join(map(str, teacher_nfe))}: the run has no "
      "teacher; give one, teacher=FOLDER"
    )
  plan = student.plan
  processes.once(lambda: check_workdir(workdir, "bench.json", "bench.png"))
  try:
    distance = DataDistance(plan)
  except UsageError as error:
    log(f"note: samples are not compared with data: {error}")
    distance = None
  counts = nfe or tuple(count for count in NFE if student.allows(count))
  counts = counts or (plan.sample.nfe,)
  samplers = [_scored(student, count, distance, workdir) for count in counts]
  if teacher_run is not None:
    for count in teacher_nfe or counts:
      best = _best(teacher_run, count, distance, teacher, log)
      if best is not None:
        samplers.append(best)
      elif teacher_nfe:
        with named(nfe="teacher_nfe"):
          teacher_run.run.make_sampler(count)
  costs = []
  with compile_cache.without():
    for size in batch or BATCH:
      costs += sampler_costs(samplers, size, seconds=seconds, log=log)
  device = student.mesh.devices.flat[0]
  header = {
    "schema": 1,
    "method": plan.model.name,
    "data": plan.data.name,
    "step": int(student.state.step),
    "device": {
      "kind": device.device_kind,
      "platform": device.platform,
      "count": student.mesh.size,
    },
    "jax": jax.__version__,
    "compared": None if distance is None else distance.num,
  }
  processes.once(lambda: _write(workdir, header, costs))
  return costs


def _best(
  teacher: SampledRun,
  nfe: int,
  distance: DataDistance | None,
  workdir: pathlib.Path | None,
  log: Callable[[str], None],
) -> TimedSampler | None:
  """Return the teacher with its best solver, or None if none makes the calls.

  Without a distance to compare by, the teacher keeps its own solver.
  """
  found = [
    # Evaluations are of the teacher's own solver.
    _scored(x, nfe, distance, workdir if x is teacher else None)
    for x in (teacher.by_solver().values() if distance else [teacher])
    if x.allows(nfe)
  ]
  if distance is None or not found:
    return found[0] if found else None
  far = {
    x.sampled.plan.sample.solver: x.scores["sliced_wasserstein"].value
    for x in found
  }
  order = sorted(far, key=far.__getitem__)
  listed = ", ".join(f"{name} {far[name]:.4f}" for name in order)
  log(f"teacher, NFE {nfe}: sliced_wasserstein of {listed}")
  return found[list(far).index(order[0])]


def _scored(
  sampled: SampledRun,
  nfe: int,
  distance: DataDistance | None,
  workdir: pathlib.Path | None,
) -> TimedSampler:
  """Return a sampler with the known quality of its samples.

  The workdir, if there is one, may hold evaluations of this sampler.
  """
  scores = evaluated_scores(workdir, sampled, nfe) if workdir else {}
  if distance is not None:
    near = Quality(value=distance(sampled, nfe), real=distance.real)
    scores = scores | {"sliced_wasserstein": near}
  return TimedSampler(sampled=sampled, nfe=nfe, scores=scores)


def _write(
  workdir: pathlib.Path, header: dict[str, Any], costs: Sequence[Cost]
) -> None:
  """Write the file and, where all have a metric, the picture."""
  rows = [dataclasses.asdict(cost) for cost in costs]
  text = json.dumps(header | {"rows": rows}, indent=2) + "\n"
  write_text(workdir / "bench.json", text)
  if shared_metric(costs):
    save_tradeoff(costs, workdir / "bench.png")
