"""How near samples of a run are to data: measured quickly, or evaluated."""

import dataclasses
import math
import pathlib
from typing import Self

import jax
import numpy as np

from jaxflow import data, evaluation, metrics
from jaxflow.parallel import processes
from jaxflow.plans import Plan
from jaxflow.reports.costs import Quality
from jaxflow.reports.sampled_runs import SampledRun
from jaxflow.runs.drawing import drawer
from jaxflow.runs.inputs import load_data

__all__ = ["DataDistance", "evaluated_scores"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataDistance:
  """Sliced Wasserstein distance of samples to the same held-out data.

  Attributes:
    reference: The held-out data.
    real: Distance of as many training data.
    seed: Seed of noise and directions.
    mesh: The devices.
  """

  reference: data.Dataset
  real: float
  seed: int
  mesh: jax.sharding.Mesh

  @classmethod
  def of(cls, plan: Plan, mesh: jax.sharding.Mesh, num: int = 500) -> Self:
    """Read the data of a plan.

    Args:
      plan: The plan.
      mesh: The devices.
      num: Number of samples, fewer where there are fewer.

    Raises:
      UsageError: If the data are not there.
    """
    seed = plan.seed

    def read(split, num):
      source = load_data(plan.data, split)
      return _random_rows(data.in_memory(source, num, seed=seed), num)

    def both():
      reference = read("test", num)
      return reference, read("train", len(reference))

    reference, train = processes.together(both)
    real = metrics.sliced_wasserstein(train.data, reference.data, seed=seed)
    return cls(reference=reference, real=real.value, seed=seed, mesh=mesh)

  def __call__(self, sampled: SampledRun, nfe: int) -> float:
    """Return the distance of samples with the labels of the data.

    Args:
      sampled: The run.
      nfe: Network calls per sample.

    Returns:
      The distance; infinity if a sample is not finite.
    """
    key, reference = jax.random.key(self.seed), self.reference
    draw = drawer(sampled.run, nfe, self.mesh)
    samples = draw(sampled.state, key, len(reference), reference.label)
    if not np.isfinite(samples).all():
      return math.inf
    return metrics.sliced_wasserstein(
      samples, reference.data, seed=self.seed
    ).value


def evaluated_scores(
  workdir: pathlib.Path, sampled: SampledRun, nfe: int
) -> dict[str, Quality]:
  """Return leading metrics of a workdir's evaluations, by name.

  Args:
    workdir: The run's folder.
    sampled: The run; evaluations of other samples do not count.
    nfe: Network calls per sample.

  Raises:
    UsageError: If `evaluation.json` is damaged.
  """
  sample = sampled.plan.sample
  own = nfe, int(sampled.state.step), sample.ema, sample.record
  found = {}
  for row in evaluation.read_rows(workdir / "evaluation.json"):
    # Evaluations of before this field were sampled as the run's config says.
    record = row.get("sampling", sample.record)
    name = evaluation.leading_metric(row["scores"])
    if name is None or own != (row["nfe"], row["step"], row.get("ema"), record):
      continue
    score = row["scores"][name]
    if score["real"]:
      found.setdefault(name, Quality(value=score["value"], real=score["real"]))
  return found


def _random_rows(dataset: data.Dataset, num: int) -> data.Dataset:
  """Return random rows of a data set that may have more."""
  rows = np.random.default_rng(0).permutation(len(dataset))[:num]
  label = None if dataset.label is None else dataset.label[rows]
  return dataclasses.replace(dataset, data=dataset.data[rows], label=label)
