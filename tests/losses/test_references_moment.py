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
    }[hyper["parameterization"]],
    group_size=hyper["group_size"],
    weight_power=hyper["a"],
    weight_shift=hyper["b"],
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
      net, scale=hyper["guidance"], num_classes=hyper["num_classes"]
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
