"""TwinFlow equals its reference numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from jaxflow import losses

CASES = references.cases("twin_flow")


def adapter(case, networks):
  hyper, given = case.hyper, case.given
  batch = references.batch_of(case)
  if hyper["twin"]:
    batch["noise_rectify"] = given["noise_rectify"]
  return losses.twin_flow_loss(
    networks["net"],
    jax.random.key(0),
    batch,
    path=references.path_of(hyper),
    sample_times=lambda key, n: (given["t"], given["s"]),
    rectify_times=lambda key, n: given["t_rectify"],
    twin=hyper["twin"],
    target_fn=networks["target"],
    order=hyper["order"],
    # The published ratio of guidance is a weight of the network itself.
    kappa=hyper["omega"],
    null_cond=hyper["num_classes"],
  )


@pytest.mark.parametrize("name", CASES)
def test_float64(name, x64):
  references.check_float64(name, adapter)


@pytest.mark.parametrize("name", CASES)
def test_float32(name):
  references.check_float32(name, adapter)


def test_every_case_is_run():
  assert len(CASES) == 2


def test_terms(x64):
  case = references.load("twin_flow_full")
  _, metrics, _ = references.evaluate(case, adapter)
  for term in ("base", "real", "fake", "rectify", "one_step"):
    expected = case.mid[term].mean()
    np.testing.assert_allclose(metrics[f"raw_{term}"], expected, rtol=1e-9)
  gradient = jnp.mean(case.mid["gradient"] ** 2)
  np.testing.assert_allclose(metrics["raw_rectify"], gradient, rtol=1e-9)
