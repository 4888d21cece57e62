"""Metrics against arithmetic and brute force, pictures against pixels."""

import itertools
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from jaxflow import evaluation
from jaxflow.errors import RunError, UsageError
from jaxflow.evaluation import (
  Recognizer,
  energy_distance,
  evaluate,
  high_quality,
  manifolds,
  mode_coverage,
  save_grid,
  save_points,
  sliced_wasserstein,
)

RING = SimpleNamespace(
  means=[
    [math.cos(angle), math.sin(angle)]
    for angle in np.arange(8) * 2 * math.pi / 8
  ],
  stds=np.full(8, 0.05),
  weights=np.full(8, 1 / 8),
)


def normal(seed, *shape):
  return np.random.default_rng(seed).standard_normal(shape)


def blobs(seed, count):
  """Makes `count` points round each of three far corners."""
  centres = np.array([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0]])
  label = np.repeat(np.arange(3), count)
  data = centres[label] + normal(seed, 3 * count, 2)
  return SimpleNamespace(data=data, label=label, num_classes=3)


def ring(seed, count):
  """Makes unlabelled points of RING, `count` from each mode."""
  means = np.repeat(np.asarray(RING.means), count, axis=0)
  data = means + RING.stds[0] * normal(seed, 8 * count, 2)
  return SimpleNamespace(data=data, label=None, num_classes=None)


def replay(dataset):
  """Makes a sampler that returns the data themselves."""
  return lambda key, num, cond: jnp.asarray(dataset.data, jnp.float32)


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


def shares(real, fake, k=3):
  found = manifolds(real, fake, k)
  return found.precision.value, found.recall.value


class TestPrecisionRecall:
  @staticmethod
  def share(points, centres, k):
    inside = 0
    for point in points:
      for index, centre in enumerate(centres):
        others = [c for i, c in enumerate(centres) if i != index]
        radius = sorted(math.dist(centre, other) for other in others)[k - 1]
        if math.dist(point, centre) <= radius:
          inside += 1
          break
    return inside / len(points)

  @pytest.mark.parametrize("k", [1, 3])
  def test_equals_the_definition(self, k):
    real, fake = normal(1, 25, 2), 0.5 * normal(2, 20, 2) + 1.5
    precision, recall = shares(real, fake, k)
    assert 0 < precision < 1 and 0 < recall < 1
    assert precision == self.share(fake, real, k)
    assert recall == self.share(real, fake, k)

  def test_the_same_set_gives_one_and_far_sets_zero(self):
    a = normal(1, 20, 4)
    assert shares(a, a.copy()) == (1, 1)
    assert shares(a, a + 1000) == (0, 0)

  def test_swapping_the_sets_swaps_the_shares(self):
    a, b = normal(1, 25, 2), normal(2, 20, 2) + 1
    assert shares(a, b) == shares(b, a)[::-1]

  def test_collapse_keeps_precision_and_loses_recall(self):
    real = normal(1, 200, 2)
    precision, recall = shares(real, 1e-3 * normal(2, 200, 2))
    assert precision == 1 and recall < 0.05

  def test_k_must_leave_a_neighbour(self):
    with pytest.raises(UsageError, match="k is 4; give a number from 1 to 3"):
      shares(normal(1, 9, 2), normal(2, 4, 2), k=4)


class TestRecognizer:
  def test_separable_blobs_are_told_apart_exactly(self):
    train, test = blobs(0, 20), blobs(1, 10)
    recognizer = Recognizer(train.data, train.label)
    assert recognizer.recognised(test.data, test.label).value == 1
    # Only the ten of class 0 move to their own neighbour's label.
    wrong = np.where(test.label == 0, 1, test.label)
    seen = recognizer.recognised(test.data, wrong)
    assert seen.value == pytest.approx(2 / 3)
    assert seen.error == pytest.approx(math.sqrt(2 / 9 / 29))

  def test_bad_requests_are_named(self):
    with pytest.raises(UsageError, match="label has shape"):
      Recognizer(np.zeros((3, 2)), [0, 1])
    with pytest.raises(UsageError, match="k is 4"):
      Recognizer(np.zeros((3, 2)), [0, 1, 1], k=4)
    with pytest.raises(UsageError, match="3 numbers each and the data 2"):
      Recognizer(np.zeros((3, 2)), [0, 1, 1]).recognised(np.zeros((1, 3)), [0])


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


class TestEvaluate:
  def test_real_data_score_as_real_data(self):
    train, test = blobs(0, 40), blobs(1, 20)
    scores = evaluate(replay(test), test, train, num=60)
    assert set(scores) == {
      *("recognised", "sliced_wasserstein", "energy_distance", "mmd"),
      *("precision", "recall", "density", "coverage", "wasserstein"),
    }
    assert scores["recognised"].value == scores["recognised"].real == 1
    # The sampler returns float32.
    assert scores["sliced_wasserstein"].value < 1e-6
    assert scores["wasserstein"].value < 1e-6
    assert scores["energy_distance"].value < 1e-6
    assert scores["precision"].value == scores["recall"].value == 1
    assert scores["sliced_wasserstein"].real > 0.05

  def test_floor_of_one_gaussian_is_its_expectation(self):
    sets = [
      SimpleNamespace(data=normal(s, n, 2), label=None)
      for s, n in ((0, 500), (1, 20_000))
    ]
    scores = evaluate(replay(sets[0]), *sets, num=500)
    assert "recognised" not in scores
    # E|x - y| = sqrt(pi) for two unit Gaussians in the plane, over 1/N + 1/N.
    expected = math.sqrt(math.pi) * 2 / 500
    # Its deviation is about half of it, over draws of either set.
    assert 0 < scores["energy_distance"].real < 3 * expected

  def test_a_shifted_sampler_is_measured_against_the_floor(self):
    train, test = ring(0, 60), ring(1, 20)

    def sampler(key, num, cond):
      assert cond is None
      near = 0.05 * jax.random.normal(key, (num, 2))
      return near + jnp.array([[1.0, 0.0]])

    scores = evaluate(sampler, test, train, num=160, mixture=RING)
    assert scores["mode_coverage"].value == 1 / 8
    assert scores["mode_coverage"].real == 1
    assert scores["high_quality"].value > 0.9
    distance = scores["sliced_wasserstein"]
    # One point against a unit circle round the origin: E|x - y|^2 / 2 = 1.
    assert distance.value == pytest.approx(1, abs=0.05)
    assert distance.real < 0.15
    assert 0 < distance.error < 0.05

  def test_the_seed_fixes_samples_and_floor(self):
    train, test = ring(0, 20), ring(1, 10)

    def sampler(key, num, cond):
      return jax.random.normal(key, (num, 2))

    first = evaluate(sampler, test, train, num=80)
    assert evaluate(sampler, test, train, num=80) == first
    assert evaluate(sampler, test, train, num=80, seed=1) != first

  def test_classes_are_asked_for_as_the_reference_has_them(self):
    train, test = blobs(0, 40), blobs(1, 20)
    asked = []

    def sampler(key, num, cond):
      asked.append(np.asarray(cond))
      return jnp.asarray(train.data[:num])

    evaluate(sampler, test, train, num=90)
    np.testing.assert_array_equal(asked[0], np.resize(test.label, 90))

  def test_a_network_names_its_numbers(self):
    train, test = blobs(0, 40), blobs(1, 20)
    network = SimpleNamespace(
      name="mirror",
      params=jnp.float32(-1),
      apply=lambda params, x: {"features": params * x},
    )
    scores = evaluate(replay(test), test, train, num=60, networks=[network])
    assert "fd_mirror" in scores and "precision" not in scores
    # Features are the samples, mirrored: equal sets have distance 0.
    assert scores["fd_mirror"].value < 1e-9 < scores["fd_mirror"].real

  def test_broken_samples_stop_with_their_number(self):
    test = blobs(1, 20)

    def sampler(key, num, cond):
      samples = jnp.zeros((num, 2)).at[3, 0].set(jnp.nan)
      return samples.at[5].set(jnp.inf)

    with pytest.raises(RunError, match="2 of 60 samples are not finite"):
      evaluate(sampler, test, blobs(0, 40), num=60)

  def test_bad_requests_are_named(self):
    train, test = blobs(0, 40), blobs(1, 20)
    with pytest.raises(UsageError, match="num=1"):
      evaluate(replay(test), test, train, num=1)
    with pytest.raises(UsageError, match=r"shape \(120, 2\).*\(60, 2\)"):
      evaluate(replay(train), test, train, num=60)
    with pytest.raises(UsageError, match="only one of reference and train"):
      evaluate(replay(test), ring(0, 2), train)


class TestPictures:
  def test_pixels_lie_where_they_should(self, tmp_path):
    images = np.full((5, 8, 8, 1), -1.0)
    images[4, 0, 0] = 3.0  # clipped to white
    images[1] = 0.0
    save_grid(images, tmp_path / "new" / "grid.png", columns=3)
    with Image.open(tmp_path / "new" / "grid.png") as sheet:
      pixels = np.asarray(sheet)
    # 3 columns and 2 rows of 32 pixels, with gaps of 2 round each.
    assert pixels.shape == (2 * 34 + 2, 3 * 34 + 2, 3)
    assert (pixels[0] == 255).all() and (pixels[:, :2] == 255).all()
    assert (pixels[2:34, 2:34] == 0).all()
    assert (pixels[2:34, 36:68] == 128).all()
    fifth = pixels[36:68, 36:68]
    assert (fifth[:4, :4] == 255).all() and (fifth[4:] == 0).all()
    assert (pixels[36:68, 70:102] == 255).all()

  def test_colours_labels_and_large_images(self, tmp_path):
    image = np.full((1, 40, 50, 3), -1.0)
    image[..., 0] = 1.0
    path = tmp_path / "one.png"
    save_grid(image, path, labels=["red"])
    with Image.open(path) as sheet:
      pixels = np.asarray(sheet)
    assert pixels.shape == (40 + 4 + 14, 50 + 4, 3)
    assert (pixels[16:56, 2:52] == [255, 0, 0]).all()
    assert pixels[2:16].min() < 128

  def test_points_are_drawn_and_drafts_vanish(self, tmp_path):
    path = tmp_path / "points.png"
    path.write_bytes(b"old")
    save_points(jnp.zeros((1, 2)), path, reference=ring(0, 3).data)
    with Image.open(path) as picture:
      pixels = np.asarray(picture.convert("RGB"))
    for colour in ([31, 119, 180], [191, 191, 191]):
      assert (pixels == colour).all(axis=-1).any()
    assert list(tmp_path.iterdir()) == [path]

  def test_a_failed_write_keeps_the_old_file(self, tmp_path, monkeypatch):
    path = tmp_path / "grid.png"
    path.write_bytes(b"old")

    def fail(self, file, format):
      file.write_bytes(b"half")
      raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
      save_grid(np.zeros((1, 8, 8, 1)), path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]

  def test_bad_requests_are_named(self, tmp_path):
    path = tmp_path / "grid.png"
    with pytest.raises(UsageError, match=r"images has shape \(2, 8, 8\)"):
      save_grid(np.zeros((2, 8, 8)), path)
    with pytest.raises(UsageError, match="1 of 2 samples are not finite"):
      save_grid(np.array([0, np.nan]).reshape(2, 1, 1, 1), path)
    with pytest.raises(UsageError, match="labels has 1 entries; give 2"):
      save_grid(np.zeros((2, 8, 8, 1)), path, labels=["a"])
    with pytest.raises(UsageError, match=r"points has shape \(2, 3\)"):
      save_points(np.zeros((2, 3)), path)
    assert not path.exists()


@pytest.mark.parametrize("metric", [sliced_wasserstein, energy_distance])
def test_unfit_samples_are_refused(metric):
  with pytest.raises(UsageError, match=r"a has shape \(2,\).*b \(3,\)"):
    metric(np.zeros((4, 2)), np.zeros((4, 3)))
  with pytest.raises(UsageError, match="b: 1 of 4 samples are not finite"):
    metric(np.zeros(4), np.array([0, 1, 2, np.inf]))
  with pytest.raises(UsageError, match="give at least 1 sample"):
    metric(np.zeros((0, 2)), np.zeros((4, 2)))


def test_public_names_exist():
  assert all(hasattr(evaluation, name) for name in evaluation.__all__)
