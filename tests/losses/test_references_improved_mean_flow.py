"""The improved MeanFlow loss and its flow map equal their reference numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from jaxflow import flow_maps, guidance, losses, sampling

GUIDANCE = ("omega", "t_start", "t_end")


def improved_mean_flow(case, networks):
  hyper, given = case.hyper, case.given
  batch = references.batch_of(case)
  cond = {"label": batch["cond"]} | {k: given[k] for k in GUIDANCE}
  return losses.improved_mean_flow_loss(
    networks["net"],
    jax.random.key(0),
    batch | {"cond": cond},
    path=references.path_of(hyper),
    sample_times=lambda key, n: (given["t"], given["s"]),
    block=tuple(hyper["block"]),
    norm_power=hyper["norm_power"],
    norm_eps=hyper["norm_eps"],
    null_cond=hyper["num_classes"],
    **references.derivative_of(hyper),
  )


CASES = references.cases("imf")


@pytest.mark.parametrize("name", CASES)
def test_float64(name, x64):
  references.check_float64(name, improved_mean_flow)
  case = references.load(name)
  _, metrics = improved_mean_flow(case, {"net": case.network("net")})
  for metric, raw in (("raw", "raw_u"), ("raw_v", "raw_v")):
    np.testing.assert_allclose(metrics[metric], case.mid[raw].mean(), rtol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_float32(name):
  references.check_float32(name, improved_mean_flow)


def test_every_case_is_run():
  assert len(CASES) == 3


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
