"""Metrics against arithmetic and brute force, pictures against pixels."""

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from toy_points import RING, blobs, normal, ring

from jaxflow.errors import RunError, UsageError
from jaxflow.evaluation.collecting import Collector, extraction
from jaxflow.figures import save_grid, save_points
from jaxflow.metrics import random_subset, repeated_labels, score


def evaluate(sampler, reference, train, *, num, networks=(), seed=0, **options):
  """Judge `num` samples by held-out data, beside as many training samples."""
  generator = np.random.default_rng(seed)
  look = jax.jit(extraction(networks))
  params = {network.name: network.params for network in networks}

  def see(samples, label):
    collector = Collector(kept=len(samples))
    collector.add(0, len(samples), look(params, np.asarray(samples)))
    return collector.drawn(label)

  def real(dataset, num):
    label = dataset.label
    rows = random_subset(generator, len(dataset.data), num, label)
    return see(dataset.data[rows], None if label is None else label[rows])

  held_out = real(reference, len(reference.data))
  fresh = real(train, num)
  cond = None
  if held_out.label is not None:
    cond = repeated_labels(generator, held_out.label, num)
  drawn = see(sampler(jax.random.key(seed), num, cond), cond)
  return score(drawn, held_out, fresh, seed=seed, **options)


def replay(dataset):
  """Make a sampler that returns the data themselves, by class if asked."""

  def sampler(key, num, cond):
    rows = np.arange(num) if cond is None else np.empty(num, int)
    for value in () if cond is None else np.unique(cond):
      asked = np.flatnonzero(np.asarray(cond) == value)
      rows[asked] = np.resize(
        np.flatnonzero(dataset.label == value), len(asked)
      )
    return jnp.asarray(dataset.data, jnp.float32)[rows]

  return sampler


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
    # In random order.
    assert np.bincount(asked[0]).tolist() == [30, 30, 30]
    assert len(set(asked[0][:10])) > 1

  def test_the_order_of_real_data_changes_little(self):
    train, test = blobs(0, 400), blobs(1, 200)  # Sorted by class.
    labels = np.repeat(np.arange(3), 400)

    def sampler(key, num, cond):  # The training data of the class asked for.
      places = jax.random.randint(key, (num,), 0, 400) + 400 * cond
      return jnp.asarray(train.data)[places]

    scores = evaluate(sampler, test, train, num=120)
    assert (np.asarray(train.label) == labels).all()
    for name in ("precision", "recall", "coverage"):
      assert scores[name].real > 0.8 and scores[name].value > 0.8, name
      assert scores[name].num == 120
    assert scores["sliced_wasserstein"].value < 0.5

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
    with pytest.raises(RunError, match="disk full"):
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
