"""The Frechet distance against the matrix root, and its error."""

import numpy as np
import pytest
import scipy.linalg

from jaxflow.errors import UsageError
from jaxflow.metrics import Moments, frechet_distance


def moments_of(rows):
  mean = rows.mean(0)
  return Moments(len(rows), mean, (rows - mean).T @ (rows - mean))


def mixed(seed, num, size, *, rank=None, shift=0.0):
  """Draw from a Gaussian with a covariance of its own."""
  generator = np.random.default_rng(seed)
  mix = generator.standard_normal((rank or size, size))
  return generator.standard_normal((num, rank or size)) @ mix + shift


def by_definition(a, b):
  first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
  root = scipy.linalg.sqrtm(first @ second).real
  return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(
    first + second - 2 * root
  )


@pytest.mark.parametrize("size", [1, 2, 6, 40])
def test_equals_the_matrix_square_root(size):
  a, b = mixed(1, 500, size), mixed(2, 400, size, shift=0.5)
  a, b = (x.reshape(len(x), size) for x in (a, b))
  found = frechet_distance(moments_of(a), moments_of(b))
  if size > 1:
    assert found.value == pytest.approx(by_definition(a, b), rel=1e-8)
  # In one dimension: difference of means and of deviations.
  else:
    stds = a.std(ddof=1) - b.std(ddof=1)
    expected = (a.mean() - b.mean()) ** 2 + stds**2
    assert found.value == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("num", "rank"), [(12, None), (300, 10), (12, 10)])
def test_equals_it_where_covariances_are_singular(num, rank):
  a, b = mixed(1, num, 20, rank=rank), mixed(2, num, 20, rank=rank)
  found = frechet_distance(moments_of(a), moments_of(b))
  # A zero eigenvalue is a rounding error, whose root has half the digits.
  assert found.value == pytest.approx(by_definition(a, b), rel=1e-5)
  assert 0 < found.error < found.value


def test_of_gaussians_with_one_basis_is_the_closed_form():
  stds, others = np.array([1.0, 2.0, 0.5]), np.array([3.0, 1.0, 0.5])
  a = Moments(11, np.zeros(3), 10 * np.diag(stds**2))
  b = Moments(11, np.array([1.0, 0.0, 2.0]), 10 * np.diag(others**2))
  expected = 5 + ((stds - others) ** 2).sum()
  assert frechet_distance(a, b).value == pytest.approx(expected, rel=1e-12)


def test_of_a_set_to_itself():
  few = moments_of(mixed(3, 4, 6))  # Of rank 3 in 6 dimensions.
  assert 0 <= frechet_distance(few, few).value < 1e-6


def test_error_of_one_dimension_is_that_of_the_delta_method():
  # F = (m - n)^2 + (s - c)^2; Var m = s^2 / N, Var s = s^2 / (2 N).
  a = Moments(101, np.array([1.0]), 100 * np.array([[4.0]]))
  b = Moments(51, np.array([0.0]), 50 * np.array([[1.0]]))
  variance = 4 * (4 / 101 + 1 / 51) + 4 * (4 / 202 + 1 / 102)
  assert frechet_distance(a, b).error == pytest.approx(variance**0.5, rel=1e-9)


def pair(seed):
  generator = np.random.default_rng(seed)
  a = generator.exponential(size=(300, 3)) * [1.0, 2.0, 0.5]
  return a, generator.standard_normal((400, 3)) + 0.5


def distance(a, b):
  return frechet_distance(moments_of(a), moments_of(b), rows_a=a, rows_b=b)


def test_error_is_the_deviation_over_repeated_draws():
  found = [distance(*pair(seed)) for seed in range(300)]
  # 300 deviations are known to 4 %; laws that are no Gaussians need the rows.
  spread = np.std([x.value for x in found])
  errors = np.mean([x.error for x in found])
  assert errors == pytest.approx(spread, rel=0.15)
  blind = frechet_distance(*map(moments_of, pair(0)))
  assert blind.error < 0.8 * spread


def test_error_is_that_of_the_bootstrap():
  a, b = pair(0)
  generator = np.random.default_rng(1)
  values = [
    distance(
      a[generator.integers(len(a), size=len(a))],
      b[generator.integers(len(b), size=len(b))],
    ).value
    for _ in range(300)
  ]
  assert distance(a, b).error == pytest.approx(np.std(values), rel=0.15)


def test_bad_requests_are_named():
  a, one = moments_of(mixed(1, 9, 3)), moments_of(mixed(1, 1, 3))
  with pytest.raises(UsageError, match="give two samples or more, of one size"):
    frechet_distance(a, one)
  with pytest.raises(UsageError, match="9 samples of 3 numbers and of 9 of 2"):
    frechet_distance(a, moments_of(mixed(1, 9, 2)))
  with pytest.raises(UsageError, match="two or more of 3 numbers"):
    frechet_distance(a, a, rows_a=np.zeros((5, 4)))
