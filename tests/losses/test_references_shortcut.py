"""The shortcut loss and its flow map equal their reference numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from jaxflow import flow_maps, losses, sampling


def shortcut(case, networks):
  hyper = case.hyper
  return losses.shortcut_loss(
    networks["net"],
    jax.random.key(0),
    references.batch_of(case),
    path=references.path_of(hyper),
    sample_times=lambda key, n: (case.given["t"], case.given["s"]),
    num_steps=round(1 / hyper["finest"]),
    block=tuple(hyper["block"]),
    target_fn=networks["target"],
    clip=hyper.get("clip", 0.0),
    omega=hyper["guidance"],
    null_cond=hyper["num_classes"],
  )


CASES = references.cases("shortcut")


@pytest.mark.parametrize("name", CASES)
def test_float64(name, x64):
  references.check_float64(name, shortcut)


@pytest.mark.parametrize("name", CASES)
def test_float32(name):
  references.check_float32(name, shortcut)


def test_every_case_is_run():
  assert len(CASES) == 2


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_sampler(steps, x64):
  case = references.load("sampler_flow_map")
  num_steps = round(1 / case.hyper["finest"])
  maker = functools.partial(flow_maps.dyadic_velocity, num_steps=num_steps)
  x = sampling.sample(
    maker(case.network("net")),
    case.given["noise"],
    jnp.linspace(1.0, 0.0, steps + 1),
    case.given["label"],
  )
  expected = case.out[f"shortcut_{steps}"]
  np.testing.assert_allclose(x, expected, rtol=1e-9, atol=1e-12)
