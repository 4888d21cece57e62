"""Compare a trained run's samples with held-out data."""

import dataclasses
import json
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxflow import metrics
from jaxflow.config import Config
from jaxflow.config.files import sampling_of
from jaxflow.config.flags import config_of_run
from jaxflow.config.limits import check_limits
from jaxflow.errors import NotFiniteError, RunError
from jaxflow.evaluation.evaluator import Evaluator
from jaxflow.evaluation.flow_scores import flow_scores
from jaxflow.evaluation.streams import Partial, remove_partials
from jaxflow.files import replace_file
from jaxflow.parallel import processes, sharding
from jaxflow.runs.drawing import drawer
from jaxflow.runs.run import Run, load
from jaxflow.training.state import TrainState

# Of the layout of evaluation.json, which docs/evaluation.md describes.
SCHEMA = 1


def evaluate(
  workdir: pathlib.Path,
  *,
  nfe: tuple[int, ...] = (),
  config: Config = None,
  step: int | str | None = None,
  say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
  """Compare a run's samples with held-out data; write `evaluation.json`.

  A long evaluation that is killed goes on at most 30 s back; likelihood and
  trajectories begin anew.

  Args:
    workdir: The run's folder.
    nfe: Network calls per sample, one evaluation each; default: the config's.
    config: The run's config with changes in `sample` and `evaluation`; default:
      as saved.
    step: The checkpoint; default: the latest; "best": the one kept as such.
    say: Prints a line.

  Returns:
    A row for each: `model`, `nfe`, `step`, `ema`, `seed`, `num`, `reference`,
    `networks`, `samples_per_second` and `scores` (name -> Score). What the
    velocity's ODE says stands in a row whose `nfe` is None. The file holds the
    same under `rows`, each Score as a mapping.

  Raises:
    UsageError: If an argument is wrong or the workdir holds no run.
    RunError: If samples are not finite, or the file cannot be written.
  """
  config = config or config_of_run(workdir)
  check_limits(config)
  run = Run.of(config)
  options = config.evaluation
  field = "--nfe" if nfe else "evaluation.nfe"
  counts = nfe or tuple(options.nfe)
  mesh = sharding.fitting_mesh(config.mesh)
  # Asks for a sampler of each, before anything long begins.
  draws = {count: drawer(run, count, field, mesh) for count in counts}
  _, state = load(
    workdir,
    field="--workdir",
    mesh=mesh,
    config=config,
    step=step,
    ema=config.sample.ema,
  )
  counted = ", ".join(map(str, counts))
  say(
    f"{config.method}, step {int(state.step)}, {config.sample.ema}: "
    f"{options.num:,} samples at NFE {counted} beside the {options.split} "
    f"split of {config.data.name}"
  )
  folder = workdir / "evaluation"
  evaluator = Evaluator.of(
    run,
    mesh,
    folder,
    num=options.num,
    kept=options.kept,
    metrics=options.metrics,
    field="evaluation.metrics",
    say=say,
  )
  about = {
    "model": config.method,
    "step": int(state.step),
    "ema": config.sample.ema,
    "sampling": sampling_of(config),
    **evaluator.about,
  }
  rows = []
  wanted = {x.strip() for x in options.metrics.split(",") if x.strip()}
  if not wanted or any(map(metrics.of_velocity, wanted)):
    found = flow_scores(run, state)
    scores = {k: v for k, v in found.items() if not wanted or k in wanted}
  else:
    scores = {}
  if scores:
    rows.append(
      {**about, "nfe": None, "num": options.flow.num, "scores": scores}
    )
  for count, draw in draws.items() if evaluator.judge.names else ():
    what = {**about, "nfe": count, "config": config.to_dict()}
    partial = Partial(folder, what)
    try:
      drawn = evaluator.draw(state, count, field, partial=partial)
      if drawn is None:
        raise AssertionError("nothing interrupts an evaluation")
      scores = evaluator.judge(drawn)
    except NotFiniteError as error:
      raise RunError(
        f"--workdir={workdir}, step {int(state.step)}, nfe={count}: {error}: "
        "training diverged, train again"
      ) from error
    speed = _speed(draw, state, evaluator)
    row = {**about, "nfe": count, "samples_per_second": speed, "scores": scores}
    rows.append(row)
  processes.once(lambda: _write(config, rows, workdir / "evaluation.json"))
  processes.once(lambda: remove_partials(folder))
  return rows


def _write(
  config: Config, rows: list[dict[str, Any]], path: pathlib.Path
) -> None:
  """Write rows as JSON, replacing the file in one step."""
  plain = [
    row
    | {"scores": {k: dataclasses.asdict(v) for k, v in row["scores"].items()}}
    for row in rows
  ]
  values = {
    "schema": SCHEMA,
    "method": config.method,
    "data": config.data.name,
    "rows": plain,
  }
  text = json.dumps(values, indent=2) + "\n"
  try:
    replace_file(path, lambda draft: draft.write_text(text))
  except OSError as error:
    raise RunError(
      f"{path} cannot be written ({error.strerror}): make --workdir writable"
    ) from error


def _speed(
  draw: Callable[..., np.ndarray], state: TrainState, evaluator: Evaluator
) -> float:
  """Measure samples per second, the median of half a second of draws.

  Args:
    draw: The sampler.
    state: The run's state.
    evaluator: It says how many samples are drawn at a time, and their labels.
  """
  num = min(evaluator.num, evaluator.run.model.config.sample.batch_size)
  labels = None if evaluator.labels is None else evaluator.labels[:num]
  draw(state, jax.random.key(0), num, labels)  # Compiles.
  laps: list[float] = []
  # All processes draw equally often: the main one's clock decides.
  while processes.of_main(sum(laps)) < 0.5:
    start = time.perf_counter()
    draw(state, jax.random.key(len(laps)), num, labels)
    laps.append(time.perf_counter() - start)
  return num / statistics.median(laps)
