"""All metrics that data allow, for one sampler, beside those of real data."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.errors import RunError, UsageError
from jaxflow.evaluation.distances import energy_distance, sliced_wasserstein
from jaxflow.evaluation.estimates import mean_of
from jaxflow.evaluation.manifolds import manifolds
from jaxflow.evaluation.mixtures import Mixture, high_quality, mode_coverage
from jaxflow.evaluation.recognition import Recognizer
from jaxflow.evaluation.scores import Score
from jaxflow.evaluation.subsets import matching_subset, proportional_subset

# (key, num, cond) -> [num, ...]; cond holds the labels [num] or is None.
Sampler = Callable[[jax.Array, int, jax.Array | None], ArrayLike]


class Dataset(Protocol):
  """Real data as `evaluate` reads them."""

  @property
  def data(self) -> Any:
    """Samples, [N, ...]."""
    ...

  @property
  def label(self) -> Any:
    """Class of each sample, whole numbers [N], or None."""
    ...

  @property
  def num_classes(self) -> int | None:
    """Number of classes; labels are below it."""
    ...


def evaluate(
  sampler: Sampler,
  reference: Dataset,
  train: Dataset,
  *,
  draws: int = 4,
  seed: int = 0,
  num: int = 2000,
  k: int = 3,
  mixture: Mixture | None = None,
) -> dict[str, Score]:
  """Compares generated samples, and fresh real ones, with held-out data.

  Each draw generates as many samples as there are reference samples, with the
  labels of the reference as `cond`. Beside it, a random subset of the training
  data of the same size, with the same number of each class, goes through the
  same metrics: this is what a perfect sampler would score. For `recognised` the
  real value is that of the reference itself, since the classifier has seen the
  training data.

  Args:
    sampler: makes samples from a key, their number and `cond`.
    reference: held-out real data; more than `num` are cut to a random subset
      that keeps the shares of the classes.
    train: real data that the model was trained on.
    draws: number of independent sets of samples, at least 1.
    seed: of the draws, the subsets and the directions.
    num: largest number of reference samples, at least 1.
    k: number of neighbours in precision, recall and the classifier.
    mixture: the true distribution of the data, where it is known.

  Returns:
    A Score for each metric that applies: `recognised` needs labels of two or
    more classes, `mode_coverage` and `high_quality` the mixture.

  Raises:
    UsageError: an argument is out of range, only one split has labels, or the
      sampler returns another shape than that of the data.
    RunError: a sample is not finite.

  Example:
    >>> from types import SimpleNamespace
    >>> points = np.random.default_rng(0).standard_normal((200, 2))
    >>> real = SimpleNamespace(data=points, label=None, num_classes=None)
    >>> def sampler(key, num, cond):
    ...   return 4 + jax.random.normal(key, (num, 2))
    >>> score = evaluate(sampler, real, real, draws=2)["sliced_wasserstein"]
    >>> score.value > 3.5, score.real < 0.1
    (True, True)
  """
  for name, value in (("draws", draws), ("num", num)):
    if value < 1:
      raise UsageError(f"{name} is {value}; give at least 1")
  if (reference.label is None) != (train.label is None):
    raise UsageError("only one of reference and train has labels; give both")
  generator = np.random.default_rng(seed)
  real, label = _cut(generator, reference, num)
  train_data, train_label = np.asarray(train.data), _classes(train)
  recognizer, ceiling = None, 0.0
  if reference.label is not None and (reference.num_classes or 0) > 1:
    recognizer = Recognizer(train_data, train_label, k)
    ceiling = recognizer.recognised(real, label).value
  cond = None if reference.label is None else jnp.asarray(label, jnp.int32)
  generated, fresh = [], []
  for draw in range(draws):
    key = jax.random.fold_in(jax.random.key(seed), draw)
    samples = _checked(sampler(key, len(real), cond), real.shape)
    generated.append(_compare(samples, real, k, seed, mixture))
    rows = matching_subset(generator, train_label, label)
    fresh.append(_compare(train_data[rows], real, k, seed, mixture))
    if recognizer is not None:
      seen = recognizer.recognised(samples, label)
      generated[-1]["recognised"] = seen.value
      fresh[-1]["recognised"] = ceiling
  return {
    name: _summary(
      [s[name] for s in generated], [s[name] for s in fresh], len(real)
    )
    for name in generated[0]
  }


def _summary(values: list[float], real: list[float], num: int) -> Score:
  """Averages the values of one metric over draws."""
  found, floor = mean_of(values), mean_of(real)
  return Score(found.value, found.error, floor.value, floor.error, num, num)


def _compare(
  samples: NDArray,
  real: NDArray,
  k: int,
  seed: int,
  mixture: Mixture | None,
) -> dict[str, float]:
  """Computes the metrics that need no labels of [N, ...] against [N, ...]."""
  shares = manifolds(real, samples, k)
  scores = {
    "sliced_wasserstein": sliced_wasserstein(samples, real, seed=seed),
    "energy_distance": energy_distance(samples, real),
    "precision": shares.precision,
    "recall": shares.recall,
  }
  if mixture is not None:
    scores["mode_coverage"] = mode_coverage(samples, mixture)
    scores["high_quality"] = high_quality(samples, mixture)
  return {name: estimate.value for name, estimate in scores.items()}


def _classes(dataset: Dataset) -> NDArray[np.integer]:
  """Returns the labels [N], or one class for all where there are none."""
  if dataset.label is None:
    return np.zeros(len(dataset.data), np.int64)
  return np.asarray(dataset.label)


def _cut(
  generator: np.random.Generator, dataset: Dataset, num: int
) -> tuple[NDArray, NDArray[np.integer]]:
  """Returns at most num samples [N, ...] and their classes [N]."""
  data, label = np.asarray(dataset.data), _classes(dataset)
  if len(data) <= num:
    return data, label
  rows = proportional_subset(generator, label, num)
  return data[rows], label[rows]


def _checked(samples: ArrayLike, shape: tuple[int, ...]) -> NDArray:
  """Returns samples as an array of that shape with finite numbers only."""
  array = np.asarray(samples)
  if array.shape != shape:
    raise UsageError(
      f"sampler returned shape {array.shape}; make it return {shape}"
    )
  array = array.astype(np.float64)
  broken = np.count_nonzero(~np.isfinite(array.reshape(len(array), -1)).all(1))
  if broken:
    raise RunError(f"{broken} of {len(array)} samples are not finite")
  return array
