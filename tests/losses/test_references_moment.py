"""Moment matching equals its reference numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from jaxflow import flow_maps, guidance, losses, paths, predictions, sampling
from jaxflow.losses.moment_matching import earlier_times

TABLE = references.table("schedules")


def adapter(case, networks):
  hyper, given = case.hyper, case.given
  path = paths.Linear(noise_std=hyper["sigma_data"])
  return losses.moment_matching_loss(
    predictions.normalized(networks["net"], path=path),
    jax.random.key(0),
    references.batch_of(case),
    path=path,
    sample_times=lambda key, n: (given["t"], given["s"]),
    middle_times=lambda t, s: given["r"],
    flow_map={
      "euler": flow_maps.average_velocity,
      "edm": functools.partial(flow_maps.rotation, path=path),
      "identity": functools.partial(flow_maps.identity, path=path),
    }[hyper["parameterization"]],
    group_size=hyper["group_size"],
    weight_power=hyper["a"],
    weight_shift=hyper["b"],
  )


# Zhou et al. 2025, in numpy; the reference numbers of the other maps hold it.
def by_formula(case, c_out, c_skip, scale):
  """Return the loss of each row, with f = c_out o + c_skip y.

  `scale` is the factor of the network's output in data units.
  """
  hyper, given = case.hyper, case.given
  sd, size = hyper["sigma_data"], hyper["group_size"]
  t, r, s = (np.asarray(given[k]) for k in "trs")

  def jump(time):
    alpha, sigma = 1 - time, time
    y = (
      alpha[:, None, None, None] * given["data"]
      + sigma[:, None, None, None] * sd * given["noise"]
    )
    std = sd * np.sqrt(alpha**2 + sigma**2)
    label = references.batch_of(case).get("cond")
    o = case.network("net")(y / std[:, None, None, None], time, s, label)
    out, skip = (
      f(alpha, sigma, 1 - s, s)[:, None, None, None] for f in (c_out, c_skip)
    )
    return np.asarray(out * scale * o + skip * y).reshape(len(t), -1)

  a, c = jump(t), jump(r)
  w = 1 / np.abs(c_out(1 - t, t, 1 - s, s) * scale)
  lam = 2 * np.log((1 - t) / t)
  w_out = (
    (1 / (t * (1 - t)))
    / (1 + np.exp(lam - hyper["b"]))
    * (1 - t) ** hyper["a"]
    / ((1 - t) ** 2 + t**2)
  )

  def kernel(x, y, rows):
    square = ((x[rows][:, None] - y[rows][None]) ** 2).sum(-1)
    distance = np.sqrt(np.maximum(square, 1e-8))
    return np.exp(-w[rows][0] * distance / x.shape[1]).mean()

  result = np.empty(len(t))
  for first in range(0, len(t), size):
    rows = slice(first, first + size)
    result[rows] = w_out[first] * (
      kernel(a, a, rows) + kernel(c, c, rows) - 2 * kernel(a, c, rows)
    )
  return result


def check_formula(case, make, *coefficients):
  hyper = case.hyper | {"parameterization": make}
  loss, _ = adapter(case._replace(hyper=hyper), {"net": case.network("net")})
  np.testing.assert_allclose(
    loss, by_formula(case, *coefficients), rtol=1e-7, atol=1e-12
  )


def test_the_formula_is_that_of_the_reference_numbers(x64):
  case = references.load("imm_euler")
  numbers = by_formula(
    case,
    lambda a, b, c, d: -(b - d),
    lambda a, b, c, d: np.ones_like(b),
    case.hyper["sigma_data"],
  )
  np.testing.assert_allclose(numbers, case.out["per_sample"], rtol=1e-7)


def test_identity_is_its_formula(x64):
  # The network's output is data itself: no factor of sigma_data.
  check_formula(
    references.load("imm_edm"),
    "identity",
    lambda a, b, c, d: c - a * d / b,
    lambda a, b, c, d: d / b,
    1.0,
  )


CASES = references.cases("imm")


@pytest.mark.parametrize("name", CASES)
def test_float64(name, x64):
  references.check_float64(name, adapter)


@pytest.mark.parametrize("name", CASES)
def test_float32(name):
  references.check_float32(name, adapter)


def test_every_case_is_run():
  assert len(CASES) == 2


# In data units the level is sd times larger, which must not change r.
@pytest.mark.parametrize("noise_std", [1.0, 0.5])
def test_earlier_times(noise_std, x64):
  hyper = references.hyper("schedules")["imm"]
  path = paths.Linear(
    t_min=hyper["t_min"], t_max=hyper["t_max"], noise_std=noise_std
  )
  t, s = jnp.asarray(TABLE["imm/t"]), jnp.asarray(TABLE["imm/s"])
  r = earlier_times(path, t, s, halvings=hyper["k"])
  np.testing.assert_allclose(r, TABLE["imm/r"], rtol=1e-12)
  assert ((s <= r) & (r <= t)).all()


@pytest.mark.parametrize("gap", [0.0, 0.05, 0.5])
def test_earlier_times_leave_a_gap(gap):
  t = jnp.array([0.5, 0.5, 0.9])
  s = jnp.array([0.1, 0.48, 0.006])
  path = paths.Linear(t_min=0.006, t_max=0.994)
  r = earlier_times(path, t, s, halvings=12, gap=gap)
  free = earlier_times(path, t, s, halvings=12)
  np.testing.assert_allclose(
    r, np.maximum(np.minimum(free, t - gap), s), rtol=1e-6
  )


@pytest.mark.parametrize(
  "name",
  [
    "pushforward_uniform",
    "restart_uniform",
    "pushforward_edm",
    "pushforward_mid",
  ],
)
def test_sampler(name, x64):
  case = references.load("sampler_imm")
  given, hyper = case.given, case.hyper
  sampler, _, grid = name.partition("_")
  path = paths.Linear(noise_std=hyper["sigma_data"])
  net = predictions.normalized(case.network("net"), path=path)
  make = functools.partial(flow_maps.rotation, path=path)
  if grid == "uniform":
    make = flow_maps.average_velocity
    net = guidance.classifier_free(
      net, scale=hyper["guidance"], null_cond=hyper["num_classes"]
    )
  points = given[f"times_{'edm' if grid == 'edm' else 'uniform'}"]
  if grid == "mid":
    # The published two steps meet at the noise level 1.4.
    points = jnp.array([hyper["t_max"], 1.4 / 2.4, 0.006])
  # The published start is scaled by 1, not by sigma(t_max).
  start = hyper["sigma_data"] * given["noise"]
  if sampler == "pushforward":
    value = sampling.sample(make(net), start, points, given["label"])
  else:
    value = sampling.Consistency()(
      make(net),
      start,
      points,
      given["label"],
      path=path,
      key=jax.random.key(0),
      step_noise=given["step_noise"][: len(points) - 2],
    )
  np.testing.assert_allclose(value, case.out[name], rtol=1e-9, atol=1e-11)
