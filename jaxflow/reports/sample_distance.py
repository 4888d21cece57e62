"""How near samples are to data, quickly and alike for all side by side."""

import dataclasses
import math
from typing import Self

import jax
import numpy as np

from jaxflow import data, metrics
from jaxflow.config import Config
from jaxflow.parallel import processes
from jaxflow.reports.sampled_runs import Contestant
from jaxflow.runs.drawing import drawer
from jaxflow.runs.run import load_data


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nearness:
  """Held-out data, to which samples of all contestants are compared alike.

  Attributes:
    reference: The held-out data.
    real: Sliced Wasserstein distance of as many training data to them.
    seed: Of noise and directions.
    mesh: The devices.
  """

  reference: data.Dataset
  real: float
  seed: int
  mesh: jax.sharding.Mesh

  @classmethod
  def of(cls, config: Config, mesh: jax.sharding.Mesh, num: int = 500) -> Self:
    """Read the data of a run.

    Args:
      config: Its config.
      mesh: The devices.
      num: Number of samples, fewer where there are fewer.

    Raises:
      UsageError: If the data are not there.
    """

    def read(split, num):
      source = load_data(config, split)
      return _some(data.in_memory(source, num, seed=config.seed), num)

    def both():
      reference = read("test", num)
      return reference, read("train", len(reference))

    reference, train = processes.together(both)
    real = metrics.sliced_wasserstein(
      train.data, reference.data, seed=config.seed
    ).value
    return cls(reference=reference, real=real, seed=config.seed, mesh=mesh)

  def distance(self, contestant: Contestant, nfe: int) -> float:
    """Return the sliced Wasserstein distance of samples to the data.

    Args:
      contestant: What samples, with the labels of the data.
      nfe: Network calls per sample.

    Returns:
      The distance; infinity if a sample is not finite.
    """
    draw = drawer(contestant.run, nfe, contestant.field, self.mesh)
    samples = draw(
      contestant.state,
      jax.random.key(self.seed),
      len(self.reference),
      self.reference.label,
    )
    if not np.isfinite(samples).all():
      return math.inf
    return metrics.sliced_wasserstein(
      samples, self.reference.data, seed=self.seed
    ).value


def _some(dataset: data.Dataset, num: int) -> data.Dataset:
  """Return a random part of a data set that may be larger."""
  rows = np.random.default_rng(0).permutation(len(dataset))[:num]
  label = None if dataset.label is None else dataset.label[rows]
  return dataclasses.replace(dataset, data=dataset.data[rows], label=label)
