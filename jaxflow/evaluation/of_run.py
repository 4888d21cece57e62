"""Compare a trained run's samples with held-out data."""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax

import jaxflow
from jaxflow import metrics
from jaxflow.errors import NotFiniteError, RunError, named
from jaxflow.evaluation.evaluator import Evaluator
from jaxflow.evaluation.flow_scores import flow_scores, wanted_numbers
from jaxflow.evaluation.streams import Partial, remove_partials
from jaxflow.files import check_workdir, part_of, write_text
from jaxflow.parallel import processes
from jaxflow.parallel.hashing import parameters_hash
from jaxflow.plans import Plan
from jaxflow.runs.drawing import streamer
from jaxflow.runs.run import Run
from jaxflow.training.state import TrainState

# Of the layout of evaluation.json, which docs/evaluation.md describes.
SCHEMA = 1


def evaluate_in(
  run: Run,
  state: TrainState,
  mesh: jax.sharding.Mesh,
  workdir: pathlib.Path,
  *,
  nfe: tuple[int, ...] = (),
  log: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
  """Evaluate a state, as `evaluate_state`, and write `evaluation.json`.

  The file holds the same under `rows`, each Score as a mapping. A long
  evaluation that is killed goes on at most 30 s back; likelihood and
  trajectories begin anew.
  """
  folder, file = part_of(workdir, "evaluation"), workdir / "evaluation.json"
  # Unfinished work goes into the folder.
  names = file.name, f"{folder.name}/partial"
  processes.once(lambda: check_workdir(workdir, *names))
  rows = evaluate_state(run, state, mesh, folder, nfe=nfe, log=log)
  processes.once(lambda: _write(run.plan, rows, file))
  processes.once(lambda: remove_partials(folder))
  return rows


def evaluate_state(
  run: Run,
  state: TrainState,
  mesh: jax.sharding.Mesh,
  folder: pathlib.Path,
  *,
  nfe: tuple[int, ...] = (),
  log: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
  """Compare the samples of a state with held-out data.

  The folder keeps trained classifiers and unfinished work. Return a row for
  each of `nfe`, network calls per sample (default: the plan's): `model`, `nfe`,
  `step`, `ema`, `seed`, `num`, `reference`, `networks`, `samples_per_second`,
  `scores` (name -> Score) and `left_out` (name -> reason). Likelihood and
  trajectories of the velocity stand in a row whose `nfe` is None.
  """
  plan, options = run.plan, run.plan.evaluation
  with named(**({} if nfe else {"nfe": "evaluation.nfe"})):
    # Before anything long begins: the counts may be wrong.
    samplers = {n: streamer(run, n, mesh) for n in nfe or options.nfe}
  with named(metric="evaluation.metrics"):
    wanted_numbers(plan, options.metrics)
  counted = ", ".join(map(str, samplers))
  log(
    f"{plan.model.name}, step {int(state.step)}, {plan.sample.ema}: "
    f"{options.num:,} samples at NFE {counted} beside the {options.split} "
    f"split of {plan.data.name}"
  )
  with named(names="evaluation.metrics"):
    evaluator = Evaluator(
      run,
      mesh,
      folder,
      num=options.num,
      kept=options.kept,
      names=options.metrics,
      samplers=samplers,
      log=log,
    )
  about = {
    "model": plan.model.name,
    "step": int(state.step),
    "ema": plan.sample.ema,
    "sampling": plan.sample.record,
    **evaluator.about,
  }
  rows = []
  leave_out = None if options.metrics else evaluator.leave_out

  def add(nfe: int | None, scores: dict[str, metrics.Score], **more: Any):
    missing = {
      name: reason
      for name, reason in evaluator.left_out.items()
      if (nfe is None) == metrics.of_velocity(name) and name not in scores
    }
    row = {**about, "nfe": nfe, **more, "scores": scores, "left_out": missing}
    rows.append(row)

  scores = flow_scores(run, state, names=options.metrics, left_out=leave_out)
  if scores:
    add(None, scores, num=options.flow.num)
  if not evaluator.judge.names:
    evaluator.check_any(scores)
    return rows
  labels = evaluator.labels
  # Neither step nor config tells parameters in another precision, or labels of
  # data that the caller gives.
  inputs = {
    **about,
    "config": plan.config.to_dict(),
    "parameters": parameters_hash(run.select(state, plan.sample.ema)),
    "labels": parameters_hash(labels),
  }
  for count in samplers:
    partial = Partial(folder, {**inputs, "nfe": count})
    try:
      drawn = evaluator.draw(state, count, partial=partial)
      assert drawn is not None, "nothing interrupts an evaluation"
      scores = evaluator.judge(drawn)
    except NotFiniteError as error:
      raise RunError(
        f"step {int(state.step)}, nfe={count}: {error}: training diverged, "
        "train again"
      ) from error
    if not scores:
      raise RunError(
        f"step {int(state.step)}, nfe={count}: the samples allow no metric "
        f"({evaluator.reason}): train longer, or again"
      )
    add(count, scores, samples_per_second=evaluator.speed(state, count))
  return rows


def _write(plan: Plan, rows: list[dict[str, Any]], path: pathlib.Path) -> None:
  """Write rows as JSON, replacing the file in one step."""
  plain = [
    row
    | {"scores": {k: dataclasses.asdict(v) for k, v in row["scores"].items()}}
    for row in rows
  ]
  values = {
    "schema": SCHEMA,
    "version": jaxflow.__version__,
    "method": plan.model.name,
    "data": plan.data.name,
    "rows": plain,
  }
  text = json.dumps(values, indent=2) + "\n"
  write_text(path, text)
