"""Drifting equals its reference numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from jaxflow import guidance, losses, paths

CASES = references.cases("drifting")


def adapter(case, networks):
  hyper, given = case.hyper, case.given
  positive = given["positive"]
  classes, group = positive.shape[:2]
  omega = given.get("omega", jnp.ones(classes, positive.dtype))
  batch = {
    "data": positive.reshape(-1, *positive.shape[2:]),
    "noise": given["noise"],
    "cond": {
      "label": jnp.repeat(given["label"], group),
      "omega": jnp.repeat(omega, group),
    },
  }
  count = 0
  if "negative" in given:
    count = given["negative"].shape[1]
    batch["negative"] = given["negative"].reshape(-1, *positive.shape[2:])
  features = None
  if "feat" in networks:

    def features(x):
      return networks["feat"](x).reshape(len(x), hyper["tokens"], -1)

  samples = len(given["noise"]) // classes
  loss, metrics = losses.drifting_loss(
    networks["net"],
    jax.random.key(0),
    batch,
    path=paths.Linear(),
    group=group,
    group_samples=samples,
    negatives=count,
    temperatures=tuple(hyper["temperatures"]),
    features=features,
  )
  # Rows report the loss of their group; the case has one of each sample.
  return jnp.repeat(loss[::group], samples), metrics


@pytest.mark.parametrize("name", CASES)
def test_float64(name, x64):
  references.check_float64(name, adapter)


@pytest.mark.parametrize("name", CASES)
def test_float32(name):
  references.check_float32(name, adapter)


@pytest.mark.parametrize("name", CASES)
def test_forces_before_they_are_normalised(name, x64):
  case = references.load(name)
  _, metrics, _ = references.evaluate(case, adapter)
  np.testing.assert_allclose(
    metrics["scale"], case.mid["scale_global"], rtol=1e-9
  )
  kinds = {"": "global"} | ({"_1": "tokens"} if "feat" in case.weights else {})
  for end, kind in kinds.items():
    found = [metrics[f"force_{r:g}{end}"] for r in case.hyper["temperatures"]]
    expected = case.mid[f"force_norm_{kind}"]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_law_of_guidance_scales(x64):
  draws = references.table("schedules_2026")
  given = references.hyper("schedules_2026")["drifting"]
  found = guidance.scale_law(
    jnp.asarray(draws["draws/uniform"]),
    high=given["high"],
    power=given["power"],
  )
  np.testing.assert_allclose(found, draws["drifting/omega"], rtol=1e-12)


def test_every_case_is_run():
  assert len(CASES) == 3
