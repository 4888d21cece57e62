"""Classes recognised and modes hit, against counting."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from toy_points import RING, blobs, ring

from jaxflow.errors import UsageError
from jaxflow.metrics import (
  NeighbourClassifier,
  class_accuracy,
  high_quality,
  mode_coverage,
)


class TestNeighbourClassifier:
  def test_separable_blobs_are_told_apart_exactly(self):
    train, test = blobs(0, 20), blobs(1, 10)
    classifier = NeighbourClassifier(train.data, train.label)
    assert classifier.accuracy(test.data, test.label).value == 1
    # Only the ten of class 0 move to their own neighbour's label.
    wrong = np.where(test.label == 0, 1, test.label)
    seen = classifier.accuracy(test.data, wrong)
    assert seen.value == pytest.approx(2 / 3)
    assert seen.error == pytest.approx(math.sqrt(2 / 9 / 29))

  def test_bad_requests_are_named(self):
    with pytest.raises(UsageError, match="label has shape"):
      NeighbourClassifier(np.zeros((3, 2)), [0, 1])
    with pytest.raises(UsageError, match="k is 4"):
      NeighbourClassifier(np.zeros((3, 2)), [0, 1, 1], k=4)
    with pytest.raises(UsageError, match="3 numbers each and the data 2"):
      NeighbourClassifier(np.zeros((3, 2)), [0, 1, 1]).accuracy(
        np.zeros((1, 3)), [0]
      )


class TestMixture:
  def test_a_dropped_and_a_thin_mode_do_not_count(self):
    means = np.asarray(RING.means)
    # 80 samples, 10 expected in each mode: 0, 4 (below half), 5 (half), ...
    counts = [0, 4, 5, 11, 15, 15, 15, 15]
    samples = np.repeat(means, counts, axis=0)
    assert mode_coverage(samples, RING).value == 6 / 8
    assert mode_coverage(samples, RING, share=0.4).value == 7 / 8

  def test_each_mode_has_its_own_width_and_weight(self):
    mixture = SimpleNamespace(
      means=[[0, 0], [10, 0]], stds=[3.0, 0.5], weights=[0.9, 0.1]
    )
    # 8.9 is 2.97 deviations from the wide mode and 2.2 from the narrow one,
    # 8 is 2.67 and 4.
    samples = [[8.9, 0]] + [[8, 0]] * 9
    assert high_quality(samples, mixture).value == 1
    assert mode_coverage(samples, mixture, share=1).value == 1

  def test_quality_is_decided_at_three_deviations(self):
    right = np.asarray(RING.means)[0]
    offsets = np.array([[0.149, 0], [0, 0.149], [0.151, 0], [0.5, 0]])
    assert high_quality(right + offsets, RING).value == 0.5

  def test_true_samples_reach_the_known_share(self):
    found = high_quality(ring(0, 1000).data, RING)
    expected = 1 - math.exp(-4.5)
    error = math.sqrt(expected * (1 - expected) / 8000)
    assert found.value == pytest.approx(expected, abs=4 * error)
    assert found.error == pytest.approx(error, rel=0.2)
    assert mode_coverage(ring(0, 1000).data, RING).value == 1


class TestErrors:
  def test_accuracy_has_the_error_of_a_share(self):
    logits = np.eye(4)[[0, 1, 2, 3, 0, 0, 0, 0]]
    found = class_accuracy(logits, [0, 1, 2, 3, 1, 1, 1, 0])
    assert found.value == 5 / 8
    assert found.error == pytest.approx(math.sqrt(5 / 8 * 3 / 8 / 7))
    with pytest.raises(UsageError, match="label has shape"):
      class_accuracy(logits, [0])

  def test_modes_have_the_deviation_over_repeated_draws(self):
    # Modes that get half of what is expected of them in half of the draws.
    thin = SimpleNamespace(
      means=RING.means, stds=RING.stds, weights=np.full(8, 1 / 4)
    )

    def draw(seed):
      generator = np.random.default_rng(seed)
      mode = generator.integers(8, size=120)
      return np.asarray(RING.means)[mode]

    found = [mode_coverage(draw(seed), thin) for seed in range(100)]
    spread = np.std([x.value for x in found])
    error = np.mean([x.error for x in found])
    assert error == pytest.approx(spread, rel=0.3)
