"""Likelihoods of exact velocities against the densities themselves."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from scipy import stats

from jaxflow import paths, solvers
from jaxflow.errors import RunError, UsageError
from jaxflow.metrics import Likelihood, dequantise, negative_log_likelihood

MEAN, STD = np.array([0.3, -0.2]), 0.5
PATHS = {
  "linear": paths.Linear(),
  "trigonometric": paths.Trigonometric(),
  "vp": paths.VariancePreserving(t_min=1e-3),
  "ve": paths.VarianceExploding(t_max=10.0),
}
WEIGHTS = np.array([0.3, 0.7])
MEANS = np.array([[1.0, 0.0], [-0.6, 0.5]])
STDS = np.array([0.4, 0.6])


def grid(path, steps):
  """Return times that are dense near data, where the velocity bends."""
  share = np.linspace(1, 0, steps + 1) ** 2
  return path.t_min + (path.t_max - path.t_min) * share


def model_law(path):
  """Mean and deviation at t_min of what is N(0, sigma^2) at t_max.

  The exact flow carries (x - centre) / spread unchanged.
  """
  exact = oracle.Gaussian(path, MEAN, STD)
  ends = jnp.array([path.t_min, path.t_max])
  centre, spread = exact.centre(ends), exact.spread(ends)
  ratio = spread[0] / spread[1]
  mean = centre[0] - ratio * centre[1]
  return np.asarray(mean), float(ratio * path.sigma(ends[1]))


def points(seed, num):
  draw = np.random.default_rng(seed).standard_normal((num, 2))
  return MEAN + STD * draw


def exact_nats(path, x):
  mean, std = model_law(path)
  return -stats.norm(mean, std).logpdf(x).sum(axis=1)


def nll(velocity, x, path, steps, seed=0, **options):
  options = {"law": "exact"} | options
  return negative_log_likelihood(
    velocity,
    x,
    jax.random.key(seed),
    path=path,
    times=grid(path, steps),
    **options,
  )


@pytest.mark.parametrize(
  ("name", "solver", "order"),
  [("linear", solvers.euler, 1), *((name, solvers.heun, 2) for name in PATHS)],
)
def test_gaussian_has_its_density_to_the_order(name, solver, order, x64):
  path = PATHS[name]
  velocity = oracle.Gaussian(path, MEAN, STD).velocity
  x = points(0, 5)
  coarse, fine = (
    np.abs(
      nll(velocity, x, path, steps, solver=solver).nll - exact_nats(path, x)
    ).max()
    for steps in (64, 128)
  )
  assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)
  assert fine < {1: 0.2, 2: 0.02}[order]


def test_one_density_is_that_of_the_data_where_noise_is_pure():
  mean, std = model_law(paths.Linear())
  np.testing.assert_allclose(mean, MEAN, atol=1e-6)
  assert std == pytest.approx(STD, rel=1e-5)


@pytest.mark.parametrize("law", ["rademacher", "gaussian"])
def test_mixture_has_its_density_within_the_error_of_the_probes(law, x64):
  path = paths.Linear()
  velocity = oracle.Mixture(path, WEIGHTS, MEANS, STDS).velocity
  generator = np.random.default_rng(3)
  which = generator.choice(2, size=400, p=WEIGHTS)
  x = MEANS[which] + STDS[which, None] * generator.standard_normal((400, 2))
  away = ((x[:, None] - MEANS) ** 2).sum(axis=2)
  parts = WEIGHTS / (2 * np.pi * STDS**2) * np.exp(-away / (2 * STDS**2))
  expected = -np.log(parts.sum(axis=1))
  found = nll(velocity, x, path, 32, law=law, probes=2, batch_size=150)
  # The same samples: what differs is the noise of probes alone.
  apart = found.nll - expected
  assert abs(apart.mean()) < 3 * apart.std() / 20 + 2e-3
  assert found.mean.error == pytest.approx(found.nll.std() / 20, rel=0.01)
  exact = nll(velocity, x[:50], path, 128)
  np.testing.assert_allclose(exact.nll, expected[:50], atol=1e-3)


def test_probes_belong_to_samples_and_conditions_to_rows():
  path = paths.Linear()

  def velocity(x, t, s, cond):
    # A full Jacobian, so that probes matter; a row of its own condition.
    mixed = x @ jnp.array([[0.1, 0.7], [-0.3, 0.2]])
    return mixed * cond[:, None]

  x, cond = points(1, 10).astype("f4"), np.arange(10, dtype="f4") / 5
  options = {"law": "gaussian", "probes": 3}
  whole = nll(velocity, x, path, 4, cond=cond, batch_size=10, **options)
  parts = nll(velocity, x, path, 4, cond=cond, batch_size=4, **options)
  np.testing.assert_allclose(whole.nll, parts.nll, rtol=1e-5)
  other = nll(velocity, x, path, 4, cond=cond, seed=1, **options)
  assert np.abs(whole.nll - other.nll)[1:].min() > 1e-6
  # The divergence is 0.3 cond at any point, and its integral too.
  exact = nll(velocity, x, path, 4, cond=cond)
  still = nll(velocity, x, path, 4, cond=0 * cond)
  assert exact.nll[0] == pytest.approx(still.nll[0], rel=1e-6)
  images = nll(
    lambda z, t, s, c: velocity(z.reshape(-1, 2), t, s, c).reshape(z.shape),
    x.reshape(10, 1, 2, 1),
    path,
    4,
    cond=cond,
  )
  np.testing.assert_allclose(images.nll, exact.nll, rtol=1e-5)


def test_parameters_of_a_partial_are_arguments():
  def velocity(scale, x, t, s, cond):
    return scale * x

  x = points(1, 4).astype("f4")
  first, second = (
    nll(jax.tree_util.Partial(velocity, jnp.array(c)), x, paths.Linear(), 200)
    for c in (0.0, 0.5)
  )
  # x(1) = x exp(c), and the integral of the divergence is 2 c.
  expected = (x**2).sum(1) / 2 * (math.e - 1) - 1
  np.testing.assert_allclose(second.nll - first.nll, expected, rtol=1e-3)


def test_bits_of_quantised_data():
  # A law uniform over the 8 x 8 cells of two numbers on 8 levels has 3 bits
  # each: its density is 1 / (8 gap)^2.
  gap = 2 / 7
  found = Likelihood(nll=np.full(5, 2 * math.log(8 * gap)), size=2)
  bits = found.bits_per_dimension(8)
  assert bits.value == pytest.approx(3.0)
  assert bits.error == 0
  data = np.repeat(np.linspace(-1, 1, 8), 2000)[:, None]
  noisy = dequantise(jax.random.key(0), data, 8) - data
  assert abs(noisy).max() <= gap / 2 + 1e-6
  assert float(noisy.std()) == pytest.approx(gap / math.sqrt(12), rel=0.02)


def test_bad_requests_are_named():
  path, x = paths.Linear(), np.zeros((3, 2))

  def still(z, t, s, cond):
    return 0 * z

  for options, words in (
    ({"law": "uniform"}, "law='uniform'"),
    ({"probes": 0}, "probes=0"),
    ({"batch_size": 0}, "batch_size=0"),
  ):
    with pytest.raises(UsageError, match=words):
      nll(still, x, path, 2, **options)
  with pytest.raises(UsageError, match="from t_max=1 to t_min=0"):
    negative_log_likelihood(
      still, x, jax.random.key(0), path=path, times=[0.0, 1.0]
    )
  with pytest.raises(UsageError, match="finite samples"):
    nll(still, x * np.nan, path, 2)
  with pytest.raises(UsageError, match="levels=1"):
    Likelihood(nll=np.zeros(3), size=1).bits_per_dimension(1)
  with pytest.raises(RunError, match="3 of 3 likelihoods are not finite"):
    nll(lambda z, t, s, c: z + jnp.inf, x, path, 2)
