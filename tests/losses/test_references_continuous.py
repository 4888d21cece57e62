"""Continuous consistency equals its reference numbers."""

import math

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
  times,
)
from jaxflow.losses.continuous_consistency import warmup_ratio

TABLE = references.table("schedules")


def angular_path(sigma_data):
  return paths.Trigonometric(t_max=math.pi / 2, noise_std=sigma_data)


def adapter(case, networks):
  hyper = case.hyper
  path = angular_path(hyper["sigma_data"])
  if hyper["network"] == "edm":
    net = predictions.trigonometric_from_edm(networks["net"], path=path)
  else:
    net = predictions.normalized(networks["net"], path=path)
  teacher = None
  if hyper["teacher"]:
    teacher = guidance.classifier_free(
      predictions.normalized(networks["teacher"], path=path),
      scale=hyper["teacher"]["guidance"],
      null_cond=hyper["num_classes"],
    )
  return losses.continuous_consistency_loss(
    net,
    jax.random.key(0),
    references.batch_of(case),
    path=path,
    sample_times=lambda key, n: case.given["t"],
    teacher=teacher,
    # r = progress / warmup, with progress in the middle of the warm-up.
    warmup=0.5,
    progress=jnp.asarray(0.5 * hyper["warmup"]),
    normalization=hyper["normalization"],
    c=hyper["c"],
    log_weight=networks.get("weight") if hyper["adaptive_weight"] else None,
    **references.derivative_of(hyper),
  )


CASES = references.cases("sct", "scd")


@pytest.mark.parametrize("name", CASES)
def test_float64(name, x64):
  references.check_float64(name, adapter)


@pytest.mark.parametrize("name", CASES)
def test_float32(name):
  references.check_float32(name, adapter)


def test_every_case_is_run():
  assert len(CASES) == 4


def test_tangent_norm(x64):
  case = references.load("sct_warmup")
  _, metrics, _ = references.evaluate(case, adapter)
  np.testing.assert_allclose(
    metrics["tangent_norm"], case.mid["tangent_norm"].mean(), rtol=1e-12
  )


def test_warmup(x64):
  total, warmup = 400_000, 10_000
  value = warmup_ratio(jnp.asarray(TABLE["scm/step"] / total), warmup / total)
  np.testing.assert_allclose(value, TABLE["scm/warmup"], rtol=1e-12)
  assert warmup_ratio(None, 0.5) == warmup_ratio(jnp.array(0.5), 0) == 1


def test_angles(x64):
  law = times.ArctanLogNormal(mean=-1.0, std=1.4, sigma_data=0.5)
  value = law.transform(jnp.asarray(TABLE["draws/normal"]))
  np.testing.assert_allclose(value, TABLE["law/trigflow_angle"], rtol=1e-12)


def test_two_angular_steps(x64):
  case = references.load("sampler_consistency")
  path = angular_path(case.hyper["sigma_data"])
  value = sampling.Consistency()(
    flow_maps.trigonometric(
      predictions.normalized(case.network("trig"), path=path)
    ),
    paths.start(path, case.given["noise"]),
    jnp.append(case.given["angles"], 0.0),
    path=path,
    key=jax.random.key(0),
    step_noise=case.given["step_noise"][:1],
  )
  np.testing.assert_allclose(
    value, case.out["scm_two_step"], rtol=1e-9, atol=1e-12
  )
