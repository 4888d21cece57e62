"""Averages of any width against the table of `ema`, integrals and sums."""

import numpy as np
import pytest
import references

from jaxflow.errors import UsageError
from jaxflow.training import ema, posthoc
from jaxflow.training.posthoc import Profile

TABLE = references.table("ema")
STORED = Profile(TABLE["posthoc/times"], TABLE["posthoc/gammas"])
WANTED = Profile(STORED.updates.max(), TABLE["posthoc/gamma_out"])


def test_gram_matrix_and_weights_of_the_table():
  rows = Profile(*(x[:, None] for x in STORED))
  np.testing.assert_allclose(
    posthoc.overlap(rows, STORED), TABLE["posthoc/gram"], rtol=1e-12
  )
  np.testing.assert_allclose(
    posthoc.overlap(STORED, WANTED), TABLE["posthoc/rhs"], rtol=1e-12
  )
  weights, miss = posthoc.weights(STORED, WANTED)
  np.testing.assert_allclose(
    weights, TABLE["posthoc/weights"], rtol=1e-7, atol=1e-12
  )
  square = 1 - TABLE["posthoc/rhs"] @ weights / posthoc.overlap(WANTED, WANTED)
  np.testing.assert_allclose(miss, np.sqrt(square), rtol=1e-7)
  sigma = references.hyper("ema")["posthoc_sigma"]
  law = posthoc.law_of(f"width={sigma}")
  np.testing.assert_allclose(law.gamma, WANTED.gamma, rtol=1e-9)


@pytest.mark.parametrize("second", [(60, 6.94), (60, 16.97), (25, 3.0)])
def test_overlap_is_the_integral_of_two_profiles(second):
  first, end = (40, 11.2), min(40, second[0])
  u, weight = np.polynomial.legendre.leggauss(60)
  u, weight = end * (u + 1) / 2, weight * end / 2
  p, q = ((g + 1) * u**g / t ** (g + 1) for t, g in (first, second))
  for pair in ((first, second), (second, first)):
    value = posthoc.overlap(*(Profile(*x) for x in pair))
    np.testing.assert_allclose(value, (weight * p * q).sum(), rtol=1e-9)


def walk_averages(gamma, values):
  """Return the power average of every update, by its definition."""
  averages, average = [], values[0]
  for k, value in enumerate(values[1:], 1):
    beta = (1 - 1 / k) ** (gamma + 1)
    average = beta * average + (1 - beta) * value
    averages.append(average)
  return np.stack(averages)


@pytest.mark.parametrize(
  ("widths", "every", "limit"),
  [((0.05, 0.1), 500, 5e-3), ((0.05, 0.1), 100, 5e-4), ((0.1,), 100, 3e-2)],
)
@pytest.mark.parametrize("width", [0.04, 0.07, 0.12, 0.2])
def test_weights_rebuild_averages_of_a_random_walk(widths, every, limit, width):
  values = np.random.default_rng(0).normal(size=(8001, 50)).cumsum(axis=0)
  gammas = [ema.Power(width=w).gamma for w in widths]
  stored = [walk_averages(gamma, values) for gamma in gammas]
  updates = np.arange(every, 8001, every)
  snapshots = np.stack([x[updates - 1] for x in stored])
  wanted = ema.Power(width=width).gamma
  weights, miss = posthoc.weights(
    Profile(np.tile(updates, len(widths)), np.repeat(gammas, len(updates))),
    Profile(8000, wanted),
  )
  result = weights @ snapshots.reshape(-1, 50)
  expected = walk_averages(wanted, values)[-1]
  # In units of what the walk moves in the width of the average.
  scale = np.sqrt(8000 * width)
  assert np.abs(result - expected).mean() < limit * scale
  assert miss < 0.06


def test_a_tracked_width_is_itself():
  gammas = [ema.Power(width=w).gamma for w in (0.05, 0.1)]
  stored = Profile(np.array([10, 10, 20, 20]), np.tile(gammas, 2))
  weights, miss = posthoc.weights(stored, Profile(20, gammas[1]))
  np.testing.assert_allclose(weights, [0, 0, 0, 1], atol=1e-12)
  assert miss < 1e-6


def test_equal_averages_share_their_weight():
  stored = Profile(np.array([10, 20, 20]), np.array([6.94, 6.94, 6.94]))
  weights, _ = posthoc.weights(stored, Profile(20, 6.94))
  np.testing.assert_allclose(weights, [0, 0.5, 0.5], atol=1e-9)


@pytest.mark.parametrize("width", ["0", "0.3", "-1", "nan", "x", ""])
def test_widths_that_do_not_exist(width):
  with pytest.raises(UsageError, match=f"^ema='width={width}': give a width"):
    posthoc.law_of(f"width={width}")
