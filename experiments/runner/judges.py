"""How good samples are, for every seed, beside what real data would score."""

import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from experiments.runner.spectra import fine_power
from jaxflow import data, metrics
from jaxflow.evaluation.classifiers import trained
from jaxflow.evaluation.collecting import Collector, extraction
from jaxflow.models import Extractor
from jaxflow.models import classifier as make_classifier

Numbers = dict[str, np.ndarray]


class PlaneJudge:
  """Compares points with a mixture of which all is known.

  Args:
    mixture: The mixture.
    num: Points of the draw that stands for the mixture; so many that their own
      error is small beside that of the samples.
  """

  _NAMES = ("sliced_wasserstein", "mode_coverage", "high_quality")

  def __init__(self, mixture: metrics.Mixture, *, num: int = 20_000):
    self._mixture = mixture
    self._reference = mixture.sample(num, seed=1_000_003)[0]

  def __call__(self, samples: np.ndarray) -> Numbers:
    """Return metrics of samples [S, N, 2], one value a seed.

    `sliced_wasserstein`, `mode_coverage` and `high_quality`: the share within
    3 standard deviations of a mode. Seeds with points that are not finite, or
    absurdly far away, have NaN.
    """
    found: dict[str, list[float]] = {}
    for points in samples:
      fine = bool(np.isfinite(points).all()) and np.abs(points).max() < 1e6
      numbers = {name: np.nan for name in self._NAMES}
      if fine:
        numbers = {
          "sliced_wasserstein": metrics.sliced_wasserstein(
            points, self._reference
          ).value,
          "mode_coverage": metrics.mode_coverage(points, self._mixture).value,
          "high_quality": metrics.high_quality(points, self._mixture).value,
        }
      for name, value in numbers.items():
        found.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in found.items()}

  def floor(self, num: int, seeds: Sequence[int]) -> Numbers:
    """Return the metrics of `num` exact samples of every seed."""
    return self(
      np.stack([self._mixture.sample(num, seed=10_000 + s)[0] for s in seeds])
    )

  def one_gaussian(self, num: int, seeds: Sequence[int]) -> Numbers:
    """Return the metrics of a Gaussian with the mixture's two moments.

    What is farther has not learnt where data are.
    """
    points = self._mixture.sample(20_000, seed=7)[0]
    mean, covariance = points.mean(axis=0), np.cov(points.T)
    return self(
      np.stack(
        [
          np.random.default_rng(s).multivariate_normal(mean, covariance, num)
          for s in seeds
        ]
      )
    )


class ImageJudge:
  """Compares images with the held-out half of a data set.

  Args:
    name: Name of a labelled data set in memory: "digits", "fashion_mnist".
    folder: Where its trained classifier is kept.
    num: Of how many held-out and fresh real images to take; default: all
      held-out ones.
    train_steps: Steps that the classifier trains.
  """

  def __init__(
    self,
    name: str,
    folder: pathlib.Path,
    *,
    num: int | None = None,
    train_steps: int = 1000,
  ):
    train, held_out = data.load(name, "train"), data.load(name, "test")
    network = make_classifier(
      data_shape=train.shape,
      num_classes=train.num_classes,
      train_steps=train_steps,
    )
    extractor = trained(
      network, name, train, lambda: held_out, folder, say=lambda line: None
    )
    self.num = num or len(held_out)
    self._network: Extractor = extractor
    self._look = jax.jit(extraction((extractor,)))
    self._short = {f"fd_{extractor.name}": "frechet"}
    self._short[f"accuracy_{extractor.name}"] = "accuracy"
    self._names = [*self._short, "sliced_wasserstein", "recall", "precision"]
    generator = np.random.default_rng(0)
    self._train = train
    rows = metrics.random_subset(
      generator, len(held_out), self.num, held_out.label
    )
    reference = self._see(held_out.data[rows], held_out.label[rows])
    self._judge = metrics.Judge(reference, None, names=self._names)

  def __call__(
    self, samples: np.ndarray, label: np.ndarray | None = None
  ) -> Numbers:
    """Return metrics of samples [S, N, H, W, C], one value a seed.

    `frechet`, in the features of the data set's own classifier, `accuracy`,
    what it says of the class asked for, `sliced_wasserstein` of pixels,
    `precision`, `recall`; `contrast`: the standard deviation of each pixel over
    samples, as a mean over pixels; `class_contrast`: the same among samples of
    one class, as a mean over classes; `fine_power` (`spectra.fine_power`). A
    seed with samples that are not finite has NaN.

    Args:
      samples: Images in [-1, 1].
      label: Classes asked for, [N]; default: classes in turn.
    """
    if label is None:
      label = np.arange(samples.shape[1]) % self._train.num_classes
    found: dict[str, list[float]] = {}
    for images in samples:
      fine = bool(np.isfinite(images).all())
      scores = self._judge(self._see(images, label)) if fine else {}
      for name in self._names:
        value = scores[name].value if fine else np.nan
        found.setdefault(self._short.get(name, name), []).append(value)
      for name, value in _of_pixels(images, label).items():
        found.setdefault(name, []).append(value if fine else np.nan)
    return {name: np.array(values) for name, values in found.items()}

  def floor(self, num: int, seeds: Sequence[int]) -> Numbers:
    """Return the metrics of `num` real training images of every seed."""
    train, found = self._train, []
    for seed in seeds:
      rows = metrics.random_subset(
        np.random.default_rng(seed), len(train), num, train.label
      )
      found.append(self(train.data[rows][None], train.label[rows]))
    return {k: np.concatenate([x[k] for x in found]) for k in found[0]}

  def _see(
    self, images: np.ndarray, label: np.ndarray
  ) -> metrics.SampleSummary:
    """Show images to the classifier."""
    params = {self._network.name: self._network.params}
    collector = Collector(kept=len(images))
    size = min(len(images), 256)
    for start in range(0, len(images), size):
      # The last batch is as long as the others: one program sees all.
      index = np.arange(start, start + size) % len(images)
      count = min(size, len(images) - start)
      collector.add(start, count, self._look(params, images[index]))
    return collector.drawn(np.asarray(label))


def _of_pixels(images: np.ndarray, label: np.ndarray) -> dict[str, float]:
  """Measure images without a reference."""
  classes = [images[label == y] for y in np.unique(label)]
  return {
    "contrast": float(images.std(axis=0).mean()),
    "class_contrast": float(
      np.mean([some.std(axis=0).mean() for some in classes])
    ),
    "fine_power": fine_power(images),
  }
