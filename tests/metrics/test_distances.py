"""Distances and shares of neighbours: definitions, and honest errors."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist

from jaxflow.errors import UsageError
from jaxflow.metrics import (
  Confidences,
  energy_distance,
  estimates,
  gaussian_mmd,
  inception_score,
  kernel_distance,
  precision_recall,
  sliced_wasserstein,
  wasserstein,
)


def normal(seed, *shape):
  return np.random.default_rng(seed).standard_normal(shape)


def pair(seed, *, shift, a=80, b=120):
  """Two Gaussians in the plane, the first moved and narrower."""
  generator = np.random.default_rng(seed)
  first = (1 - shift / 4) * generator.standard_normal((a, 2)) + shift
  return first, generator.standard_normal((b, 2))


SMOOTH = {
  "sliced": lambda a, b: sliced_wasserstein(a, b, projections=32),
  "energy": energy_distance,
  "mmd": lambda a, b: gaussian_mmd(a, b, bandwidth=1.0),
  "exact": wasserstein,
}


@pytest.fixture(scope="module")
def shares():
  draws = (pair(seed, shift=0.3, a=200, b=200) for seed in range(70))
  return [precision_recall(b, a) for a, b in draws]


class TestSlicedWasserstein:
  def test_shift_by_m_in_d_dimensions_gives_m_over_root_d(self):
    a = normal(0, 40, 3)
    shift = np.array([1.0, 2.0, 2.0])
    # The mean of cos^2 over the sphere is 1 / 3, with deviation
    # sqrt(1 / 5 - 1 / 9) = 0.3 for one direction.
    squared = sliced_wasserstein(a, a + shift, projections=20_000).value ** 2
    assert squared == pytest.approx(9 / 3, abs=9 * 4 * 0.3 / 20_000**0.5)

  def test_two_point_masses_use_only_the_component_along_each_direction(self):
    generator = np.random.default_rng(5)
    directions = generator.standard_normal((7, 2))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    expected = np.sqrt(np.mean((directions @ [3.0, -1.0]) ** 2))
    found = sliced_wasserstein([[3, -1]], [[0, 0]], projections=7, seed=5)
    assert found.value == pytest.approx(expected, rel=1e-12)

  @pytest.mark.parametrize(("n", "m"), [(6, 6), (6, 4), (5, 7), (1, 3)])
  def test_one_dimension_equals_an_expanded_coupling(self, n, m):
    a, b = normal(1, n), normal(2, m)
    # Repeating every point m (or n) times gives sets of equal size.
    paired = np.sort(np.repeat(a, m)) - np.sort(np.repeat(b, n))
    expected = math.sqrt(np.mean(paired**2))
    assert sliced_wasserstein(a, b).value == pytest.approx(expected, rel=1e-12)

  def test_agrees_with_scipy_where_all_moves_are_equally_long(self):
    a = np.arange(5.0)
    expected = stats.wasserstein_distance(a, a + 0.25)
    assert sliced_wasserstein(a, a + 0.25).value == pytest.approx(expected)

  def test_is_symmetric_and_zero_on_the_same_set(self):
    a, b = normal(3, 30, 2, 2, 1), normal(4, 20, 2, 2, 1)
    there, back = sliced_wasserstein(a, b), sliced_wasserstein(b, a)
    assert there.value == pytest.approx(back.value)
    assert there.error == pytest.approx(back.error)
    assert sliced_wasserstein(a, a[::-1]).value < 1e-12

  def test_more_directions_than_one_chunk_holds(self):
    a, b = normal(3, 10, 2), normal(4, 10, 2)
    generator = np.random.default_rng(0)
    directions = generator.standard_normal((130, 2))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    moves = np.sort(a @ directions.T, axis=0) - np.sort(b @ directions.T, 0)
    expected = math.sqrt(np.mean(moves**2))
    found = sliced_wasserstein(a, b, projections=130)
    assert found.value == pytest.approx(expected)


class TestEnergyDistance:
  @staticmethod
  def mean(a, b):
    return np.mean([math.dist(x, y) for x, y in itertools.product(a, b)])

  def test_equals_a_double_loop(self):
    a, b = normal(1, 9, 3) + 1000, normal(2, 7, 3) + 1000
    expected = 2 * self.mean(a, b) - self.mean(a, a) - self.mean(b, b)
    assert energy_distance(a, b).value == pytest.approx(expected, abs=1e-7)

  def test_equals_scipy_in_one_dimension(self):
    a, b = normal(1, 30), normal(2, 20)
    expected = stats.energy_distance(a, b) ** 2
    assert energy_distance(a, b).value == pytest.approx(expected, abs=1e-7)

  def test_is_symmetric_and_zero_on_the_same_set(self):
    a, b = normal(3, 30, 2), normal(4, 20, 2)
    there, back = energy_distance(a, b), energy_distance(b, a)
    assert there.value == pytest.approx(back.value)
    assert there.error == pytest.approx(back.error)
    assert energy_distance(a, a.copy()).value == pytest.approx(0, abs=1e-7)


class TestErrors:
  @pytest.mark.parametrize("name", SMOOTH)
  @pytest.mark.parametrize(("shift", "most"), [(0.8, 1.15), (0.0, 1.6)])
  def test_error_is_the_deviation_over_repeated_draws(self, name, shift, most):
    found = [SMOOTH[name](*pair(seed, shift=shift)) for seed in range(150)]
    ratio = np.mean([x.error for x in found]) / np.std([x.value for x in found])
    # 150 draws know a deviation to 6 %; at equal laws sqrt(2) is expected.
    assert 0.85 < ratio < most

  @pytest.mark.parametrize("name", ["sliced", "energy", "mmd"])
  def test_error_is_that_of_the_jackknife(self, name):
    sets = pair(0, shift=0.8, a=40, b=30)
    variance = 0.0
    for moves in (0, 1):
      values = []
      for left_out in range(len(sets[moves])):
        less = list(sets)
        less[moves] = np.delete(sets[moves], left_out, axis=0)
        values.append(SMOOTH[name](*less).value)
      variance += np.var(values) * (len(values) - 1)
    found = SMOOTH[name](*sets)
    assert found.error == pytest.approx(math.sqrt(variance), rel=0.05)

  @pytest.mark.parametrize(
    "name", ["precision", "recall", "density", "coverage"]
  )
  def test_error_of_shares_is_the_deviation(self, name, shares):
    ratio = np.sqrt(np.mean([getattr(x, name).error ** 2 for x in shares]))
    ratio /= np.std([getattr(x, name).value for x in shares])
    # Blocks of a tenth have other shares, so only nearly other errors.
    assert 0.7 < ratio < 1.6

  def test_blocks_are_disjoint_and_of_one_size(self):
    rows = estimates.random_blocks(np.random.default_rng(0), 103, 10)
    assert rows.shape == (10, 10) and len(np.unique(rows)) == 100


class TestPrecisionRecall:
  @staticmethod
  def by_definition(real, fake, k):
    """Loop over equations 1 to 4, distances by `math.dist`."""

    def radius(points, i):
      others = (math.dist(points[i], p) for j, p in enumerate(points) if j != i)
      return sorted(others)[k - 1]

    def held(points, balls, radii):
      return [
        [math.dist(p, c) <= r for c, r in zip(balls, radii, strict=True)]
        for p in points
      ]

    real_radii = [radius(real, i) for i in range(len(real))]
    fake_radii = [radius(fake, i) for i in range(len(fake))]
    inside = np.array(held(fake, real, real_radii))
    back = np.array(held(real, fake, fake_radii))
    return (
      inside.any(axis=1).mean(),
      back.any(axis=1).mean(),
      inside.sum() / (k * len(fake)),
      inside.any(axis=0).mean(),
    )

  @pytest.mark.parametrize("k", [1, 3])
  @pytest.mark.parametrize("memory", [256, 1e-3])
  def test_equals_the_definition_in_chunks_of_any_size(
    self, k, memory, monkeypatch
  ):
    monkeypatch.setattr("jaxflow.metrics.points._WORKING_MEMORY_MIB", memory)
    real, fake = normal(1, 40, 2), 0.5 * normal(2, 30, 2) + 1.0
    found = precision_recall(real, fake, k)
    expected = self.by_definition(real, fake, k)
    numbers = found.precision, found.recall, found.density, found.coverage
    assert tuple(x.value for x in numbers) == expected
    assert 0 < min(expected)

  def test_few_samples_have_no_error(self):
    found = precision_recall(normal(1, 9, 2), normal(2, 9, 2))
    assert found.density.error is None

  @staticmethod
  def both(real, fake, k=3):
    found = precision_recall(real, fake, k)
    return found.precision.value, found.recall.value

  def test_the_same_set_gives_one_and_far_sets_zero(self):
    a = normal(1, 20, 4)
    assert self.both(a, a.copy()) == (1, 1)
    assert self.both(a, a + 1000) == (0, 0)

  def test_swapping_the_sets_swaps_the_both(self):
    a, b = normal(1, 25, 2), normal(2, 20, 2) + 1
    assert self.both(a, b) == self.both(b, a)[::-1]

  def test_collapse_keeps_precision_and_loses_recall(self):
    real = normal(1, 200, 2)
    precision, recall = self.both(real, 1e-3 * normal(2, 200, 2))
    assert precision == 1 and recall < 0.05

  def test_k_must_leave_a_neighbour(self):
    with pytest.raises(UsageError, match="k is 4; give a number from 1 to 3"):
      self.both(normal(1, 9, 2), normal(2, 4, 2), k=4)


class TestKernelDistance:
  def test_equals_a_double_loop(self):
    a, b = normal(1, 4, 5), normal(2, 6, 5) + 0.3
    found = kernel_distance(a, b, blocks=2, seed=3)
    generator = np.random.default_rng(3)
    parts = (estimates.random_blocks(generator, len(x), 2) for x in (a, b))
    values = []
    for first, second in zip(*parts, strict=True):

      def mean(pairs):
        return np.mean([(x @ y / 5 + 1) ** 3 for x, y in pairs])

      within = [
        mean(itertools.permutations(points, 2))
        for points in (a[first], b[second])
      ]
      across = mean(itertools.product(a[first], b[second]))
      values.append(sum(within) - 2 * across)
    assert found.value == pytest.approx(np.mean(values), rel=1e-9)
    apart = abs(values[0] - values[1]) / 2
    assert found.error == pytest.approx(apart, rel=1e-9)

  def test_interval_holds_zero_for_equal_laws_and_has_no_bias(self):
    found = [
      kernel_distance(normal(2 * seed, 100, 8), normal(2 * seed + 1, 150, 8))
      for seed in range(200)
    ]
    inside = np.mean([x.interval[0] <= 0 <= x.interval[1] for x in found])
    assert inside >= 0.9
    values = np.array([x.value for x in found])
    assert abs(values.mean()) < 3 * values.std() / math.sqrt(200)

  def test_a_shift_is_found_without_bias(self):
    # One dimension, k = (x y + 1)^3, x of moments 0, 1, 0 and y = x + 1 of
    # moments 1, 2, 4: E k(x, x') = 1 + 3, E k(x, y) = 1 + 3 * 2,
    # E k(y, y') = 1 + 3 + 3 * 4 + 16.
    found = [
      kernel_distance(normal(2 * s, 100, 1), normal(2 * s + 1, 100, 1) + 1)
      for s in range(200)
    ]
    values = np.array([x.value for x in found])
    error = values.std() / math.sqrt(200)
    assert values.mean() == pytest.approx(4 + 32 - 14, abs=3 * error)

  def test_blocks_have_at_most_a_thousand_rows(self):
    a = normal(0, 2500, 1)
    assert kernel_distance(a, a).degrees == 9
    assert kernel_distance(np.tile(a, (5, 1)), np.tile(a, (5, 1))).degrees == 12

  def test_too_few_rows(self):
    with pytest.raises(UsageError, match="19 samples in 10 blocks"):
      kernel_distance(normal(0, 19, 2), normal(1, 90, 2))


class TestGaussianDiscrepancy:
  def test_equals_a_double_loop(self):
    a, b = normal(1, 7, 3), normal(2, 9, 3) + 0.5

    def mean(pairs):
      return np.mean([math.exp(-(math.dist(x, y) ** 2) / 8) for x, y in pairs])

    expected = mean(itertools.permutations(a, 2))
    expected += mean(itertools.permutations(b, 2))
    expected -= 2 * mean(itertools.product(a, b))
    found = gaussian_mmd(a, b, bandwidth=2.0)
    assert found.value == pytest.approx(expected, rel=1e-9)

  def test_bandwidth_is_the_median_distance_of_the_reference(self):
    a, b = normal(1, 7, 3), normal(2, 9, 3)
    median = np.median(cdist(b, b)[np.triu_indices(9, 1)])
    expected = gaussian_mmd(a, b, bandwidth=median).value
    assert gaussian_mmd(a, b).value == pytest.approx(expected)

  def test_has_no_bias_for_equal_laws(self):
    values = np.array(
      [
        gaussian_mmd(*pair(seed, shift=0.0, a=20, b=30)).value
        for seed in range(300)
      ]
    )
    assert abs(values.mean()) < 3 * values.std() / math.sqrt(300)

  def test_bad_requests_are_named(self):
    with pytest.raises(UsageError, match="bandwidth is 0"):
      gaussian_mmd(normal(0, 4, 2), np.zeros((4, 2)))
    with pytest.raises(UsageError, match="sets of 1 and 4 samples"):
      gaussian_mmd(normal(0, 1, 2), np.zeros((4, 2)))


class TestWasserstein:
  def test_equals_the_best_of_all_permutations(self):
    a, b = normal(1, 6, 2), normal(2, 6, 2) + 1
    best = min(
      sum(math.dist(x, b[j]) ** 2 for x, j in zip(a, order, strict=True))
      for order in itertools.permutations(range(6))
    )
    assert wasserstein(a, b).value == pytest.approx(math.sqrt(best / 6))

  def test_one_dimension_pairs_sorted_points(self):
    a, b = normal(1, 50), normal(2, 50) * 2
    expected = math.sqrt(np.mean((np.sort(a) - np.sort(b)) ** 2))
    assert wasserstein(a, b).value == pytest.approx(expected)
    # The potentials of a single direction, which are free to some extent too.
    sliced = sliced_wasserstein(a, b, projections=1)
    assert wasserstein(a, b).error == pytest.approx(sliced.error, rel=0.1)

  def test_a_shift_is_its_length(self):
    a = normal(1, 80, 3)
    found = wasserstein(a, a + np.array([2.0, 2.0, 1.0]))
    assert found.value == pytest.approx(3.0)

  def test_large_sets_are_thinned_evenly(self):
    a, b = np.arange(8.0), np.arange(0.0, 8.0, 2.0)
    assert wasserstein(a, b, num=4).value == pytest.approx(0)
    with pytest.raises(UsageError, match="num is 0"):
      wasserstein(a, b, num=0)


class TestInceptionScore:
  @staticmethod
  def logits():
    return 2 * normal(1, 60, 4)

  def test_equals_the_definition_per_split(self):
    logits = self.logits()
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scores = []
    for split in range(10):
      part = p[split::10]
      divergence = part * np.log(part / part.mean(axis=0))
      scores.append(math.exp(divergence.sum(axis=1).mean()))
    sums = Confidences.empty(4).update(logits, np.arange(60))
    found = inception_score(sums)
    assert found.value == pytest.approx(np.mean(scores), rel=1e-12)
    expected = np.std(scores, ddof=1) / math.sqrt(10)
    assert found.error == pytest.approx(expected, rel=1e-9)

  def test_streams_in_any_order_and_through_arrays(self):
    logits, index = self.logits(), np.arange(60)
    whole = Confidences.empty(4).update(logits, index)
    order = np.random.default_rng(0).permutation(60)
    first, second = order[:17], order[17:]
    parts = [Confidences.empty(4).update(logits[i], i) for i in (first, second)]
    again = Confidences(**parts[0].arrays()).merge(parts[1])
    for name, array in whole.arrays().items():
      np.testing.assert_allclose(again.arrays()[name], array, rtol=1e-12)

  def test_sure_and_even_has_as_many_as_classes(self):
    logits = np.tile(1e3 * np.eye(4), (10, 1))
    index = np.repeat(np.arange(10), 4)
    sums = Confidences.empty(4).update(logits, index)
    assert inception_score(sums).value == pytest.approx(4)

  def test_bad_requests_are_named(self):
    sums = Confidences.empty(4)
    with pytest.raises(UsageError, match=r"shape \(2, 3\); give \(2, 4\)"):
      sums.update(np.zeros((2, 3)), [0, 1])
    with pytest.raises(UsageError, match="9 samples leave a split empty"):
      inception_score(sums.update(np.zeros((9, 4)), np.arange(9)))
    with pytest.raises(UsageError, match="as many splits and classes"):
      sums.merge(Confidences.empty(5))


@pytest.mark.parametrize("metric", [sliced_wasserstein, energy_distance])
def test_unfit_samples_are_refused(metric):
  with pytest.raises(UsageError, match=r"a has shape \(2,\).*b \(3,\)"):
    metric(np.zeros((4, 2)), np.zeros((4, 3)))
  with pytest.raises(UsageError, match="b: 1 of 4 samples are not finite"):
    metric(np.zeros(4), np.array([0, 1, 2, np.inf]))
  with pytest.raises(UsageError, match="give at least 1 sample"):
    metric(np.zeros((0, 2)), np.zeros((4, 2)))
