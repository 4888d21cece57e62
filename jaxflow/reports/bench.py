"""Measure what sampling from a run costs, beside its network calls.

`bench.json` holds

  schema   1
  method, data, step
           of the run
  device   kind, platform and number of the devices
  jax      version
  judged   how many samples `scores` of sliced Wasserstein are of; null where
           the data were not there
  rows     a mapping for each model, NFE and batch: the fields of
           `evaluation.Cost`; times in seconds, memory in bytes
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxflow import evaluation, reports
from jaxflow.config import Config
from jaxflow.config.files import load_config, sampling_of
from jaxflow.errors import RunError, UsageError
from jaxflow.files import replace_file
from jaxflow.parallel import processes, sharding
from jaxflow.reports import Cost, Quality
from jaxflow.reports.sample_distance import Nearness
from jaxflow.reports.sampled_runs import Contestant, other_run, teacher_of
from jaxflow.reports.timing import Entry, measure
from jaxflow.runs.run import Run, load

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
  say: Callable[[str], None] = print,
) -> list[Cost]:
  """Measure samplers of a run and of its teacher; write `bench.json`.

  The teacher runs with the solver, of those that its network knows, whose
  samples come nearest to held-out data at that number of calls.

  Args:
    workdir: The run's folder.
    nfe: Network calls per sample; default: those of `NFE` that its sampler can
      make, or else the config's.
    batch: Samples at a time; default: `BATCH`.
    teacher: The folder of another run; default: the teacher in the run's own
      checkpoint, if it has one.
    teacher_nfe: Network calls per sample of the teacher; default: as `nfe`.
    seconds: How long to time the samplers of a batch.
    say: Prints a line.

  Returns:
    What each costs; `bench.png` shows quality against latency.

  Raises:
    UsageError: If an argument is wrong or the workdir holds no run.
    RunError: If a file cannot be written.
  """
  for size in batch:
    if size < 1:
      raise UsageError(f"--batch={size}: give at least 1")
  config = load_config(workdir, field="--workdir")
  model = Run.of(config).model
  for count in nfe:
    model.make_sampler(count, "--nfe")
  mesh = sharding.fitting_mesh(config.mesh)
  rival = None if teacher is None else other_run(teacher, config, mesh)
  run, state = load(
    workdir,
    field="--workdir",
    mesh=mesh,
    ema=config.sample.ema,
    roles=("teacher",),
  )
  student = Contestant(role="run", run=run, state=state, field="--nfe")
  rival = rival or teacher_of(student)
  if teacher_nfe and rival is None:
    raise UsageError(
      f"--teacher_nfe={','.join(map(str, teacher_nfe))}: the run has no "
      "teacher; give one, --teacher=FOLDER"
    )
  nearness = _nearness(config, mesh, say)
  counts = nfe or tuple(count for count in NFE if student.allows(count))
  counts = counts or (config.sample.nfe,)
  entries = [_entry(student, count, nearness, workdir) for count in counts]
  if rival is not None:
    for count in teacher_nfe or counts:
      strict = bool(teacher_nfe)
      entries += _best(rival, count, nearness, teacher, strict=strict, say=say)
  if jax.config.jax_compilation_cache_dir:  # pyright: ignore
    say("note: JAX has a cache of programs: times to compile are of reading it")
  costs = []
  for size in batch or BATCH:
    costs += measure(entries, size, mesh, seconds=seconds, say=say)
  header = {
    "schema": 1,
    "method": config.method,
    "data": config.data.name,
    "step": int(state.step),
    "device": _device(mesh),
    "jax": jax.__version__,
    "judged": None if nearness is None else len(nearness.reference),
  }
  processes.once(lambda: _write(workdir, header, costs))
  return costs


def _nearness(
  config: Config, mesh: jax.sharding.Mesh, say: Callable[[str], None]
) -> Nearness | None:
  """Return what compares samples with data; None if the data are not there."""
  try:
    return Nearness.of(config, mesh)
  except UsageError as error:
    say(f"note: samples are not compared with data: {error}")
    return None


def _best(
  teacher: Contestant,
  nfe: int,
  nearness: Nearness | None,
  workdir: pathlib.Path | None,
  *,
  strict: bool,
  say: Callable[[str], None],
) -> list[Entry]:
  """Return the teacher with its best solver for a number of calls.

  Args:
    teacher: The teacher.
    nfe: Network calls per sample.
    nearness: What tells which is best; without it the teacher keeps its own.
    workdir: Its folder, if it has one.
    strict: Raise UsageError if no solver can make so many; or return nothing.
    say: Prints a line.
  """
  ways = list(teacher.solved().values()) if nearness else [teacher]
  entries = [
    _entry(way, nfe, nearness, workdir if way is teacher else None)
    for way in ways
    if way.allows(nfe)
  ]
  if not entries and strict:
    teacher.run.model.make_sampler(nfe, teacher.field)
  if nearness is None:
    return entries

  def distance(entry):
    return entry.scores["sliced_wasserstein"].value

  entries.sort(key=distance)
  found = [f"{x.contestant.solver} {distance(x):.4f}" for x in entries]
  say(f"teacher, NFE {nfe}: sliced_wasserstein of {', '.join(found)}")
  return entries[:1]


def _entry(
  contestant: Contestant,
  nfe: int,
  nearness: Nearness | None,
  workdir: pathlib.Path | None,
) -> Entry:
  """Return a sampler with what is known of its samples.

  Args:
    contestant: What samples.
    nfe: Network calls per sample.
    nearness: What compares samples with data here, or None.
    workdir: Where an evaluation of this sampler may be, or None.
  """
  scores = {}
  if nearness is not None:
    value = nearness.distance(contestant, nfe)
    scores["sliced_wasserstein"] = Quality(value=value, real=nearness.real)
  rows = []
  if workdir is not None:
    rows = evaluation.read_rows(workdir / "evaluation.json")
  for row in rows:
    name = evaluation.leading_metric(row["scores"])
    if not _is_of(row, contestant, nfe) or name in (None, *scores):
      continue
    score = row["scores"][name]
    if score["real"]:
      scores[name] = Quality(value=score["value"], real=score["real"])
  return Entry(contestant=contestant, nfe=nfe, scores=scores)


def _is_of(row: dict[str, Any], contestant: Contestant, nfe: int) -> bool:
  """Return whether an evaluation was of samples that are drawn so."""
  config = contestant.run.model.config
  own = nfe, int(contestant.state.step), config.sample.ema
  sampling = sampling_of(config)
  return (row["nfe"], row["step"], row.get("ema")) == own and (
    row.get("sampling", sampling) == sampling
  )


def _device(mesh: jax.sharding.Mesh) -> dict[str, Any]:
  first = mesh.devices.flat[0]
  return {
    "kind": first.device_kind,
    "platform": first.platform,
    "count": mesh.size,
  }


def _write(
  workdir: pathlib.Path, header: dict[str, Any], costs: Sequence[Cost]
) -> None:
  """Write the file and, where a metric is known of all, the picture."""
  rows = [dataclasses.asdict(cost) for cost in costs]
  text = json.dumps(header | {"rows": rows}, indent=2) + "\n"
  path = workdir / "bench.json"
  try:
    replace_file(path, lambda file: file.write_text(text))
    if reports.shared_metric(costs):
      reports.save_tradeoff(costs, workdir / "bench.png")
  except OSError as error:
    raise RunError(
      f"{path} cannot be written ({error.strerror}): make --workdir writable"
    ) from error
