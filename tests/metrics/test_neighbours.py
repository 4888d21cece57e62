"""Nearest training samples and copies of them, against their definitions."""

import numpy as np
import pytest

from jaxflow.errors import UsageError
from jaxflow.metrics import memorisation, nearest_neighbours
from jaxflow.reports.image_gallery import slerp

RNG = np.random.default_rng(0)


def test_nearest_is_the_brute_force_one():
  samples = RNG.standard_normal((20, 3, 2))
  train = RNG.standard_normal((50, 3, 2))
  index, distance = nearest_neighbours(samples, train, k=3)
  for i, sample in enumerate(samples):
    lengths = np.sqrt(((train - sample) ** 2).sum(axis=(1, 2)))
    order = np.argsort(lengths)[:3]
    assert index[i].tolist() == order.tolist()
    np.testing.assert_allclose(distance[i], lengths[order], rtol=1e-12)


def test_wrong_number_of_neighbours():
  with pytest.raises(UsageError, match=r"k=3: give 1 to 2"):
    nearest_neighbours(np.zeros((1, 2)), np.zeros((2, 2)), k=3)


def test_memorisation_of_copies_of_real_data_and_of_far_ones():
  train = RNG.standard_normal((400, 8))
  held_out = RNG.standard_normal((400, 8))
  noise = 1e-3 * RNG.standard_normal((100, 8))
  assert memorisation(train[:100] + noise, train, held_out).value == 1
  half = np.concatenate([train[:50], 9 + noise[:50]])
  assert memorisation(half, train, held_out).value == 0.5
  assert memorisation(held_out + 9, train, held_out).value == 0


def test_memorisation_of_the_same_law_is_the_quantile():
  train = RNG.standard_normal((500, 2))
  shares = []
  for _ in range(60):
    held_out, samples = RNG.standard_normal((2, 300, 2))
    shares.append(memorisation(samples, train, held_out, quantile=0.1))
  errors = [share.error for share in shares]
  values = np.array([share.value for share in shares])
  assert abs(values.mean() - 0.1) < 4 * values.std() / 60**0.5 + 1 / 300
  assert 0.7 < values.std() / np.mean(errors) < 1.3


def test_memorisation_that_is_no_share():
  with pytest.raises(UsageError, match=r"quantile=1: give a number between"):
    memorisation(
      np.zeros((1, 2)), np.zeros((2, 2)), np.ones((1, 2)), quantile=1
    )


def test_arcs_turn_at_one_speed_and_keep_their_length():
  a, b = RNG.standard_normal((2, 5, 4, 4, 1))
  b /= np.linalg.norm(b.reshape(5, -1), axis=1)[:, None, None, None]
  b *= np.linalg.norm(a.reshape(5, -1), axis=1)[:, None, None, None]
  arcs = slerp(a, b, num=7)
  assert arcs.shape == (5, 7, 4, 4, 1)
  np.testing.assert_allclose(arcs[:, 0], a, atol=1e-12)
  np.testing.assert_allclose(arcs[:, -1], b, atol=1e-12)
  flat = arcs.reshape(5, 7, -1)
  lengths = np.linalg.norm(flat, axis=2)
  np.testing.assert_allclose(lengths, lengths[:, :1].repeat(7, 1), rtol=1e-9)
  cosines = (flat[:, 1:] * flat[:, :-1]).sum(2) / lengths[:, :1] ** 2
  np.testing.assert_allclose(cosines, cosines[:, :1].repeat(6, 1), rtol=1e-9)


def test_arc_between_points_on_one_line():
  ends = np.array([[1.0, 2.0]]), np.array([[2.0, 4.0]])
  np.testing.assert_allclose(slerp(*ends, num=3)[0, 1], [1.5, 3.0])


@pytest.mark.parametrize(
  ("b", "num", "words"), [([[1.0]], 3, "shape"), ([[1.0, 2.0]], 1, "num=1")]
)
def test_wrong_arcs(b, num, words):
  with pytest.raises(UsageError, match=words):
    slerp([[0.0, 1.0]], b, num=num)
