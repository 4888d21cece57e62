"""Every loss equals its reference numbers, in value and in gradient."""

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
  solvers,
  weights,
)


def flow_matching(case, networks, **options):
  hyper = case.hyper
  return losses.flow_matching_loss(
    networks["net"],
    jax.random.key(0),
    references.batch_of(case),
    path=references.path_of(hyper),
    sample_times=lambda key, n: case.given["t"],
    prediction=hyper.get("prediction", "velocity"),
    loss_space=hyper.get("loss_space"),
    weight=getattr(weights, hyper.get("weight", "uniform")),
    **options,
  )


def reflow_mixed(case, networks):
  given = case.given
  names = {"data": "data", "noise": "noise", "cond": "label"}
  batch = {
    k: jnp.where(
      paths.expand(given["synthetic"], given[name]),
      given[f"pair_{name}"],
      given[name],
    )
    for k, name in names.items()
  }
  return losses.flow_matching_loss(
    networks["net"],
    jax.random.key(0),
    batch,
    path=paths.Linear(),
    sample_times=lambda key, n: given["t"],
  )


def mean_flow(case, networks):
  hyper = case.hyper
  teacher = guided = {}
  if hyper["guidance"] == "teacher":
    teacher = {
      "teacher": guidance.classifier_free(
        networks["teacher"],
        scale=hyper["omega"],
        null_cond=hyper["num_classes"],
        interval=(hyper["t_start"], hyper["t_end"]),
      ),
      "dropped_rows": "teacher" if "teacher_label" in hyper else "sample",
    }
  elif hyper["guidance"] == "cfg":
    guided = {
      "omega": hyper["omega"],
      "kappa": hyper["kappa"],
      "guidance_start": hyper["t_start"],
      "guidance_end": hyper["t_end"],
    }
  return losses.mean_flow_loss(
    networks["net"],
    jax.random.key(0),
    references.batch_of(case),
    path=references.path_of(hyper),
    sample_times=lambda key, n: (case.given["t"], case.given["s"]),
    block=tuple(hyper["block"]),
    norm_power=hyper["norm_power"],
    norm_eps=hyper["norm_eps"],
    squared=hyper.get("squared", False),
    reduction=hyper.get("reduce", "sum"),
    null_cond=hyper["num_classes"],
    **teacher,
    **guided,
    **references.derivative_of(hyper),
  )


def consistency(case, networks):
  hyper, path = case.hyper, references.path_of(case.hyper)
  maker = {
    "edm_skip": functools.partial(
      flow_maps.edm_skip, sigma_data=hyper.get("sigma_data")
    ),
    "linear_skip": functools.partial(flow_maps.linear_skip, t_max=path.t_max),
    "hard": flow_maps.hard_boundary,
    "free": flow_maps.free,
    "flow": flow_maps.average_velocity,
  }[hyper["parameterization"]]
  raw = networks["teacher"]
  kind = hyper["teacher"]["kind"]
  if kind == "denoiser":
    raw = predictions.edm_denoiser(raw, sigma_data=hyper["sigma_data"])
    kind = "data"
  velocity = predictions.as_prediction(
    raw, path, source=kind, target="velocity"
  )
  teacher = guidance.classifier_free(
    velocity,
    scale=hyper["teacher"]["guidance"],
    null_cond=hyper.get("num_classes"),
  )
  weight = hyper.get("weight", "uniform")
  batch = references.batch_of(case)
  if "noise_boundary" in case.given:
    batch["noise_boundary"] = case.given["noise_boundary"]
  return losses.consistency_loss(
    networks["net"],
    jax.random.key(0),
    batch,
    path=path,
    sample_times=lambda key, n: (case.given["t"], case.given["s"]),
    flow_map=maker,
    target_fn=networks.get("target"),
    teacher=teacher,
    solver=getattr(solvers, hyper["solver"]),
    distance=getattr(weights, hyper["distance"]),
    weight=weights.karras(hyper["sigma_data"])
    if weight == "karras"
    else getattr(weights, weight),
    boundary_weight=hyper.get("boundary_weight", 0.0),
  )


LOSSES = {
  "fm": flow_matching,
  "reflow_mixed": reflow_mixed,
  "reflow_distill": flow_matching,
  "meanflow": mean_flow,
  "cd": consistency,
}


def adapter_of(name):
  return next(v for k, v in LOSSES.items() if name.startswith(k))


CASES = references.cases(*LOSSES)


@pytest.mark.parametrize("name", CASES)
def test_float64(name, x64):
  references.check_float64(name, adapter_of(name))


@pytest.mark.parametrize("name", CASES)
def test_float32(name):
  references.check_float32(name, adapter_of(name))


def test_every_case_is_run():
  assert len(CASES) == 5 + 2 + 11 + 8


@pytest.mark.parametrize("name", references.cases("fm_"))
def test_the_sum_is_the_mean_times_the_elements(name, x64):
  case = references.load(name)
  adapter = adapter_of(name)
  size = case.given["data"][0].size

  def summed(case, networks):
    return adapter(case, networks, reduction="sum")

  loss, metrics, gradient = references.evaluate(case, summed)
  np.testing.assert_allclose(loss, size * case.out["per_sample"], rtol=1e-9)
  if "raw" in case.mid:
    np.testing.assert_allclose(metrics["raw"], size * case.mid["raw"].mean())
  for role, values in case.grad.items():
    for key, value in values.items():
      error = np.linalg.norm(gradient[role][key] - size * value)
      assert error <= 1e-9 * size * np.linalg.norm(value)


def test_another_reduction_is_named():
  case = references.load("fm_linear_velocity", jnp.float32)
  with pytest.raises(ValueError, match=r"^reduction='max': give one of mean"):
    adapter_of("fm_")(case, {"net": None}, reduction="max")
