"""Samples of a run for pictures, from one draw of noise."""

import functools
from collections.abc import Callable

import jax
import numpy as np

from jaxflow import conditions, data, metrics
from jaxflow.parallel import processes, sharding
from jaxflow.reports.sampled_runs import SampledRun, teacher_of
from jaxflow.runs.decoding import make_picture
from jaxflow.runs.drawing import as_seen, checked_conditions
from jaxflow.runs.opening import load_data
from jaxflow.types import PyTree

# Values of a split that are compared with samples: 256 MB of float64.
_MOST_VALUES = 2**25


class GallerySamples:
  """Samples of a run, with their noise and sampler.

  `draw` maps unit noise and labels to samples; `samples` are those of `noise`
  and of `labels`, the classes in turn or other conditions. `picture` turns
  samples into images.
  """

  def __init__(self, source: SampledRun, *, nfe: int, num: int):
    plan, self.source, self.nfe = source.plan, source, nfe
    self.teacher = teacher_of(source)
    noise = np.random.default_rng(plan.seed).standard_normal(
      (num, *plan.model.shape)
    )
    self.noise = noise.astype(np.float32)
    self.labels = as_seen(plan, checked_conditions(plan, num))
    self.draw = noise_sampler(source, nfe)
    self.samples = self.draw(self.noise, self.labels)
    self.picture = make_picture(plan.data)

  def inputs(self, num: int) -> tuple[np.ndarray, PyTree]:
    """Return noise and labels of the first samples."""
    return self.noise[:num], conditions.rows(self.labels, slice(num))

  @functools.cached_property
  def real(self) -> tuple[np.ndarray, np.ndarray]:
    """Training data and held-out data, or a part of large sets."""
    plan = self.source.plan
    most = max(1, _MOST_VALUES // self.samples[0].size)

    def read(split):
      source = load_data(plan.data, split)
      return data.in_memory(source, most, seed=plan.seed).data

    return processes.together(lambda: (read("train"), read("test")))

  def memorisation(self) -> str:
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


def noise_sampler(
  source: SampledRun, nfe: int
) -> Callable[[np.ndarray, PyTree], np.ndarray]:
  """Return `(noise, labels) -> samples`, which draws a batch at a time."""
  plan, params = source.plan, source.params
  sampler = plan.model.make_sampler(plan.sample, nfe)
  sampler = jax.jit(sharding.with_mesh(source.mesh, sampler))

  def draw(noise, labels):
    size = min(len(noise), plan.sample.batch_size)
    parts = []
    for first in range(0, len(noise), size):
      # The last batch is as long as the others: one program draws all.
      index = np.arange(first, first + size) % len(noise)
      given = conditions.rows(labels, index)
      part = sampler(params, noise[index], jax.random.key(0), given)
      parts.append(processes.gather(part)[: len(noise) - first])
    return np.concatenate(parts)

  return draw
