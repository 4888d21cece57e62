"""The improved MeanFlow loss and its flow map equal their reference numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from jaxflow import (
  flow_maps,
  guidance,
  losses,
  paths,
  predictions,
  sampling,
  weights,
)

GUIDANCE = ("omega", "t_start", "t_end")


def distance(network, norm):
  return network and (lambda a, b: norm(network(a), network(b)))


def improved_mean_flow(case, networks):
  hyper, given = case.hyper, case.given
  batch = references.batch_of(case)
  path, net = references.path_of(hyper), networks["net"]
  options = {}
  if "time_floor" in hyper:
    path = paths.Linear(noise_std=hyper["noise_scale"])
    floor = hyper["time_floor"]
    net = predictions.from_data(net, path=path, floor=floor)
    options = {
      "time_floor": floor,
      "perceptual": distance(networks.get("feat"), weights.l2),
      "perceptual_weight": hyper["weight_perceptual"],
      "classifier": distance(networks.get("feat2"), weights.l2_sum),
      "classifier_weight": hyper["weight_classifier"],
      "perceptual_end": hyper["perceptual_max_t"],
    }
  cond = {"label": batch["cond"]} | {k: given[k] for k in GUIDANCE}
  return losses.improved_mean_flow_loss(
    net,
    jax.random.key(0),
    batch | {"cond": cond},
    path=path,
    sample_times=lambda key, n: (given["t"], given["s"]),
    block=tuple(hyper["block"]),
    norm_power=hyper["norm_power"],
    norm_eps=hyper["norm_eps"],
    null_cond=hyper["num_classes"],
    **references.derivative_of(hyper),
    **options,
  )


CASES = references.cases("imf", "pmf")


@pytest.mark.parametrize("name", CASES)
def test_float64(name, x64):
  references.check_float64(name, improved_mean_flow)
  case = references.load(name)
  _, metrics, _ = references.evaluate(case, improved_mean_flow)
  for metric, raw in (("raw", "raw_u"), ("raw_v", "raw_v")):
    np.testing.assert_allclose(metrics[metric], case.mid[raw].mean(), rtol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_float32(name):
  references.check_float32(name, improved_mean_flow)


def test_every_case_is_run():
  assert len(CASES) == 3 + 2


@pytest.mark.parametrize("steps", [1, 2])
def test_sampler(steps, x64):
  case = references.load("sampler_flow_map")
  told = {k: case.hyper[k] for k in GUIDANCE}
  jump = functools.partial(flow_maps.guided_velocity, **told)
  x = sampling.sample(
    jump(case.network("imf")),
    case.given["noise"],
    jnp.linspace(1.0, 0.0, steps + 1),
    case.given["label"],
  )
  expected = case.out[f"improved_mean_flow_{steps}"]
  np.testing.assert_allclose(x, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_scale_law(power, x64):
  table = references.table("schedules")
  value = guidance.scale_law(
    jnp.asarray(table["draws/uniform"]), high=8.0, power=power
  )
  np.testing.assert_allclose(value, table[f"law/omega_beta{power}"], rtol=1e-12)
