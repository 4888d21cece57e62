"""How near samples of a run are to data: measured quickly, or evaluated."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxflow import data, metrics
from jaxflow.errors import UsageError
from jaxflow.metrics.scores import Score
from jaxflow.options import Count, Natural
from jaxflow.parallel import processes
from jaxflow.plans import Plan
from jaxflow.reading import read_json, reading
from jaxflow.reports.costs import Quality, leading_metric
from jaxflow.reports.sampled_runs import SampledRun
from jaxflow.runs.drawing import drawer
from jaxflow.runs.opening import load_data


class DataDistance:
  """Sliced Wasserstein distance of samples to the same held-out data.

  It takes at most `num` of each; `real` is that of as many training data.

  Raises:
    UsageError: If the two are the same data.
  """

  def __init__(self, plan: Plan, num: int = 500):
    self._seed = plan.seed

    def read(split, num):
      source = load_data(plan.data, split)
      found = data.in_memory(source, num, seed=plan.seed)
      # What is in memory already may have more.
      rows = np.random.default_rng(0).permutation(len(found))[:num]
      taken = found.take(rows)
      return taken["data"], taken.get("cond")

    def both():
      held_out = read("test", num)
      return held_out, read("train", len(held_out[0]))

    (self._data, self._label), (train, _) = processes.together(both)
    self.num = len(self._data)
    self.real = self._between(train)
    if not self.real:
      raise UsageError(
        f"data.name={plan.data.name!r}: test data are training data, so no "
        "distance between them tells what a small one is"
      )

  def __call__(self, sampled: SampledRun, nfe: int) -> float:
    """Return the distance of samples with the labels of the data.

    It is infinite if a sample is not finite.
    """
    draw = drawer(sampled.run, nfe, sampled.mesh)
    key = jax.random.key(self._seed)
    samples = draw(sampled.state, key, self.num, self._label)
    return self._between(samples) if np.isfinite(samples).all() else math.inf

  def _between(self, samples: np.ndarray) -> float:
    found = metrics.sliced_wasserstein(samples, self._data, seed=self._seed)
    return found.value


# An evaluation: how its samples were drawn, and their scores.
_Calls = Count | None
_ROW = {
  "nfe": _Calls,
  "step": Natural,
  "ema": str | None,
  "sampling": dict[str, dict[str, Any]] | None,
  "scores": Mapping[str, Score],
}


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
  """Return the rows of an `evaluation.json`, none without a file.

  A row has `nfe`, `step`, `scores` (name -> Score) and more.
  """
  if not path.exists():
    return []
  with reading(path, "delete it, or run jaxflow evaluate again"):
    return read_json(path, {"rows": [_ROW]})["rows"]


def evaluated_scores(
  workdir: pathlib.Path, sampled: SampledRun, nfe: int
) -> dict[str, Quality]:
  """Return leading metrics of a workdir's evaluations of a run, by name.

  Evaluations of other samples do not count.
  """
  sample = sampled.plan.sample
  own = nfe, int(sampled.state.step), sample.ema, sample.record
  found = {}
  for row in read_rows(workdir / "evaluation.json"):
    # Evaluations of before this field were sampled as the run's config says.
    record = row.get("sampling", sample.record)
    name = leading_metric(row["scores"])
    if name is None or own != (row["nfe"], row["step"], row.get("ema"), record):
      continue
    score = row["scores"][name]
    if score.real:
      found.setdefault(name, Quality(value=score.value, real=score.real))
  return found
