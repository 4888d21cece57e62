"""The Frechet distance as a loss equals its reference numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from jaxflow import flow_maps, losses, paths
from jaxflow.losses.frechet_distance import filled_moments

CASES = references.cases("fd_loss")


def pair_of(given, mean, second):
  """Mean and covariance of a mean and a second moment."""
  m = given[mean]
  return m, given[second] - jnp.outer(m, m)


def memory_of(case):
  given, names = case.given, case.hyper["encoders"]
  data = [
    (given[f"reference_mean_{n}"], given[f"reference_covariance_{n}"])
    for n in names
  ]
  if case.hyper["memory"] == "batch":
    return filled_moments(data, data)  # What is kept has no effect.
  kept = [pair_of(given, f"mean_{n}", f"second_{n}") for n in names]
  return filled_moments(kept, data)


def call(case, networks):
  hyper = case.hyper
  encoders = [networks[name] for name in hyper["encoders"]]
  noise = case.given["noise"]
  batch = {"data": 0 * noise, "noise": noise, "cond": case.given["label"]}
  return losses.frechet_distance_loss(
    networks["net"],
    jax.random.key(0),
    batch,
    path=paths.Linear(),
    flow_map=flow_maps.average_velocity,
    moments=memory_of(case),
    features=lambda x: tuple(f(x)[:, None] for f in encoders),
    layer_weights=tuple(hyper["encoders"].values()),
    decay=0.0 if hyper["memory"] == "batch" else hyper["memory"],
    eps=hyper["eps"],
  )


def adapter(case, networks):
  return call(case, networks)[:2]


@pytest.mark.parametrize("name", CASES)
def test_float64(name, x64):
  references.check_float64(name, adapter)


@pytest.mark.parametrize("name", CASES)
def test_float32(name):
  references.check_float32(name, adapter)


def test_every_case_is_run():
  assert len(CASES) == 2


def test_distances_and_memory(x64):
  case = references.load("fd_loss_memory")
  networks = {role: case.network(role) for role in ("net",)}
  for role in case.hyper["encoders"]:
    networks[role] = lambda x, role=role: references.feature_network(
      case.weights[role], x
    )
  _, metrics, new = call(case, networks)
  for i, name in enumerate(case.hyper["encoders"]):
    np.testing.assert_allclose(
      metrics[f"frechet_distance_{i}"], case.mid[f"distance_{name}"], rtol=1e-9
    )
    kept = new["moments"]["generated"][i]
    mean, covariance = pair_of(case.mid, f"mean_{name}", f"second_{name}")
    np.testing.assert_allclose(kept["mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(
      kept["covariance"], covariance, rtol=1e-9, atol=1e-12
    )
