"""What the pictures of a run are made of: samples from one draw of noise."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Self

import jax
import numpy as np

from jaxflow import data, metrics
from jaxflow.parallel import processes, sharding
from jaxflow.reports.sampled_runs import Contestant, teacher_of
from jaxflow.runs.drawing import class_labels
from jaxflow.runs.run import load_data

# (noise [N, ...], labels [N] or None) -> samples [N, ...].
Draw = Callable[[np.ndarray, np.ndarray | None], np.ndarray]

# Values of a split that are compared with samples: 256 MB of float64.
_MOST_VALUES = 2**25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
  """A picture, or why there is none.

  Attributes:
    title: What it shows.
    text: A line about it.
    file: Where it is, or None.
  """

  title: str
  text: str
  file: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
  """A run with samples of it.

  Attributes:
    run: The run.
    teacher: Its teacher, or None.
    mesh: The devices.
    nfe: Network calls per sample.
    noise: Unit noise, `[N, ...]`.
    labels: Classes in turn, `[N]`, or None.
    draw: Makes samples of noise and labels.
    samples: Those of `noise`, `[N, ...]`.
    folder: Where pictures go.
  """

  run: Contestant
  teacher: Contestant | None
  mesh: jax.sharding.Mesh
  nfe: int
  noise: np.ndarray
  labels: np.ndarray | None
  draw: Draw
  samples: np.ndarray
  folder: pathlib.Path

  @classmethod
  def of(
    cls,
    run: Contestant,
    mesh: jax.sharding.Mesh,
    *,
    nfe: int,
    num: int,
    folder: pathlib.Path,
  ) -> Self:
    """Draw samples of a run.

    Args:
      run: The run, with its teacher's parameters if it has a teacher.
      mesh: The devices.
      nfe: Network calls per sample.
      num: How many samples.
      folder: Where pictures go.
    """
    model = run.run.model
    shape = (num, *model.shape)
    generator = np.random.default_rng(model.config.seed)
    noise = generator.standard_normal(shape).astype(np.float32)
    labels = class_labels(model.num_classes, num, None)
    draw = from_noise(run, nfe, mesh)
    return cls(
      run=run,
      teacher=teacher_of(run),
      mesh=mesh,
      nfe=nfe,
      noise=noise,
      labels=labels,
      draw=draw,
      samples=draw(noise, labels),
      folder=folder,
    )

  def first(self, num: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return noise and labels of the first samples."""
    return self.noise[:num], None if self.labels is None else self.labels[:num]

  @functools.cached_property
  def real(self) -> tuple[np.ndarray, np.ndarray]:
    """Training data and held-out data, or a part of large sets.

    Raises:
      UsageError: If they are not there.
    """
    config = self.run.run.model.config
    most = max(1, _MOST_VALUES // self.samples[0].size)

    def read(split):
      source = load_data(config, split)
      return data.in_memory(source, most, seed=config.seed).data

    return processes.together(lambda: (read("train"), read("test")))

  def memorised(self) -> str:
    """Say how many samples are suspiciously near to training data."""
    train, held_out = self.real
    share = metrics.memorisation(self.samples, train, held_out)
    assert share.error is not None
    return (
      f"Of {len(self.samples)} samples {100 * share.value:.1f} ± "
      f"{100 * share.error:.1f} % are nearer to one of {len(train)} training "
      "samples than 99 % of held-out samples are; of a model that copies "
      "nothing it is 1 %."
    )


def from_noise(
  contestant: Contestant, nfe: int, mesh: jax.sharding.Mesh
) -> Draw:
  """Return what draws samples from given unit noise, a batch at a time.

  Args:
    contestant: What samples.
    nfe: Network calls per sample.
    mesh: The devices.
  """
  model = contestant.run.model
  sampler = jax.jit(
    sharding.with_mesh(mesh, model.make_sampler(nfe, contestant.field))
  )
  params = contestant.params

  def draw(noise, labels):
    size = min(len(noise), model.config.sample.batch_size)
    parts = []
    for first in range(0, len(noise), size):
      # The last batch is as long as the others: one program draws all.
      index = np.arange(first, first + size) % len(noise)
      part = sampler(
        params,
        noise[index],
        jax.random.key(0),
        None if labels is None else labels[index],
      )
      parts.append(processes.gather(part)[: len(noise) - first])
    return np.concatenate(parts)

  return draw
