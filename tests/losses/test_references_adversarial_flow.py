"""Adversarial flow equals its reference numbers, both players."""

import jax
import numpy as np
import pytest
import references

from jaxflow import flow_maps, losses
from jaxflow.losses import adversarial

CASES = references.cases("adversarial_flow")


def given_batch(case):
  noises = {k: x for k, x in case.given.items() if k.startswith("noise_")}
  return references.batch_of(case) | noises


def common(case):
  return {
    "path": references.path_of(case.hyper),
    "sample_times": lambda key, n: (case.given["t"], case.given["s"]),
    "criterion": adversarial.relativistic,
  }


def generator(case, networks):
  assert case.hyper["prediction"] == "data"
  return losses.adversarial_flow_loss(
    networks["net"],
    jax.random.key(0),
    given_batch(case),
    flow_map=flow_maps.free,
    discriminator=networks["disc"],
    transport_weight=case.hyper["transport"],
    **common(case),
  )


def discriminator(case, networks):
  hyper = case.hyper
  return losses.discriminator_loss(
    networks["disc"],
    jax.random.key(0),
    given_batch(case),
    generator=flow_maps.free(networks["net"]),
    penalty=hyper["penalty"],
    penalty_step=hyper["penalty_noise"],
    penalty_block=(len(case.given["t"]), hyper["penalty_rows"]),
    centre=hyper["centre"],
    **common(case),
  )


def adapter(case, networks):
  players = {"generator": generator, "discriminator": discriminator}
  return players[case.hyper["player"]](case, networks)


@pytest.mark.parametrize("name", CASES)
def test_float64(name, x64):
  references.check_float64(name, adapter)


@pytest.mark.parametrize("name", CASES)
def test_float32(name):
  references.check_float32(name, adapter)


def test_every_case_is_run():
  assert len(CASES) == 2


def test_metrics_of_the_generator(x64):
  case = references.load("adversarial_flow_generator")
  _, metrics, _ = references.evaluate(case, adapter)
  expected = case.mid["transport"].mean() / case.hyper["transport"]
  np.testing.assert_allclose(metrics["raw"], expected, rtol=1e-9)
  expected = case.mid["adversarial"].mean()
  np.testing.assert_allclose(metrics["adversarial"], expected, rtol=1e-9)


def test_metrics_of_the_discriminator(x64):
  case = references.load("adversarial_flow_discriminator")
  _, metrics, _ = references.evaluate(case, adapter)
  expected = case.mid["adversarial"].mean()
  np.testing.assert_allclose(metrics["raw"], expected, rtol=1e-9)
  # Mean over the penalised rows, which the file weights by m / k.
  expected = (case.mid["r1"] + case.mid["r2"]).mean()
  np.testing.assert_allclose(metrics["penalty"], expected, rtol=1e-9)
