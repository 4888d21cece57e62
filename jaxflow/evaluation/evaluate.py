"""All metrics that data allow, for one sampler, beside those of real data."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxflow.errors import UsageError
from jaxflow.evaluation.collecting import Collector
from jaxflow.evaluation.extraction import FeatureNetwork, extraction
from jaxflow.metrics.mixtures import Mixture
from jaxflow.metrics.scores import Score, score
from jaxflow.metrics.subsets import random_subset, repeated_labels
from jaxflow.metrics.summary import SampleSummary

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


def evaluate(
  sampler: Sampler,
  reference: Dataset,
  train: Dataset,
  *,
  num: int = 2000,
  networks: Sequence[FeatureNetwork] = (),
  names: Sequence[str] | None = None,
  mixture: Mixture | None = None,
  k: int = 3,
  seed: int = 0,
  batch_size: int = 256,
) -> dict[str, Score]:
  """Compare generated samples, and fresh real ones, with held-out data.

  Beside each number stands the score of a perfect sampler: that of as many
  random samples of the training data, with the shares of its classes.

  Args:
    sampler: makes samples from a key, their number and `cond`: the classes
      with the shares of the reference, in random order, or None.
    reference: held-out real data.
    train: real data that the model was trained on.
    num: number of samples, at least 2; of the training data at most all.
    networks: feature networks to look through as well.
    names: of metrics, as in METRICS; None for all that apply.
    mixture: the true distribution of the data, where it is known.
    k: number of neighbours in precision, recall and the classifier.
    seed: of the samples, the choice of training data and the metrics.
    batch_size: samples that networks see at a time.

  Returns:
    A Score by name.

  Raises:
    UsageError: an argument is out of range, only one split has labels, or the
      sampler returns another shape than that of the data.
    NotFiniteError: a sample is not finite.

  Example:
    >>> from types import SimpleNamespace
    >>> points = np.random.default_rng(0).standard_normal((200, 2))
    >>> real = SimpleNamespace(data=points, label=None)
    >>> def sampler(key, num, cond):
    ...   return 4 + jax.random.normal(key, (num, 2))
    >>> score = evaluate(sampler, real, real, num=100)["sliced_wasserstein"]
    >>> score.value > 3.5, score.real < 0.5
    (True, True)
  """
  if num < 2:
    raise UsageError(f"num={num}: give at least 2")
  if (reference.label is None) != (train.label is None):
    raise UsageError("only one of reference and train has labels; give both")
  generator = np.random.default_rng(seed)
  held, held_label = _shuffled(generator, reference, len(reference.data))
  fresh, fresh_label = _shuffled(generator, train, num)
  labels = None
  if held_label is not None:
    labels = repeated_labels(generator, held_label, num).astype(np.int32)
  cond = None if labels is None else jax.numpy.asarray(labels)
  samples = np.asarray(sampler(jax.random.key(seed), num, cond))
  wanted = num, *np.shape(reference.data)[1:]
  if samples.shape != wanted:
    raise UsageError(
      f"sampler returned shape {samples.shape}; make it return {wanted}"
    )
  params = {network.name: network.params for network in networks}
  look = jax.jit(extraction(networks))

  def see(array: Any, label: Any) -> SampleSummary:
    collector = Collector(kept=len(array))
    for start in range(0, len(array), batch_size):
      index = np.arange(start, start + batch_size) % len(array)
      count = min(batch_size, len(array) - start)
      # The last batch is as long as the others: one program sees all.
      collector.add(start, count, look(params, np.asarray(array)[index]))
    return collector.drawn(label)

  return score(
    see(samples, labels),
    see(held, held_label),
    see(fresh, fresh_label),
    names=names,
    mixture=mixture,
    k=k,
    seed=seed,
  )


def _shuffled(
  generator: np.random.Generator, dataset: Dataset, num: int
) -> tuple[np.ndarray, np.ndarray | None]:
  """Return at most num random samples [n, ...] and their classes [n]."""
  data = np.asarray(dataset.data)
  label = None if dataset.label is None else np.asarray(dataset.label)
  rows = random_subset(generator, len(data), num, label)
  return data[rows], None if label is None else label[rows]
