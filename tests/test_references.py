"""Every loss equals its reference numbers, in value and in gradient."""

import functools
import glob
import pathlib

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

PATHS = {
  "linear": paths.Linear,
  "trigonometric": paths.Trigonometric,
  "variance_preserving": paths.VariancePreserving,
  "variance_exploding": paths.VarianceExploding,
}


def path_of(hyper):
  options = dict(hyper["path"])
  return PATHS[options.pop("name")](**options)


def batch_of(case):
  """Data, noise and labels, dropped where the case says so."""
  label = case.given.get("label")
  if "drop" in case.given:
    label = jnp.where(case.given["drop"], case.hyper["num_classes"], label)
  batch = {"data": case.given["data"], "noise": case.given["noise"]}
  if "noise_boundary" in case.given:
    batch["noise_boundary"] = case.given["noise_boundary"]
  return batch if label is None else batch | {"cond": label}


def flow_matching(case, net):
  hyper = case.hyper
  return losses.flow_matching_loss(
    net,
    jax.random.key(0),
    batch_of(case),
    path=path_of(hyper),
    sample_times=lambda key, n: case.given["t"],
    prediction=hyper.get("prediction", "velocity"),
    loss_space=hyper.get("loss_space"),
    weight=getattr(weights, hyper.get("weight", "uniform")),
  )


def reflow_mixed(case, net):
  given = case.given
  synthetic = given["synthetic"]

  def pick(pair, real):
    return jnp.where(paths.over(synthetic, like=real), pair, real)

  batch = {
    "data": pick(given["pair_data"], given["data"]),
    "noise": pick(given["pair_noise"], given["noise"]),
    "cond": pick(given["pair_label"], given["label"]),
  }
  return losses.flow_matching_loss(
    net,
    jax.random.key(0),
    batch,
    path=paths.Linear(),
    sample_times=lambda key, n: given["t"],
  )


def mean_flow(case, net):
  hyper = case.hyper
  teacher = guided = {}
  if hyper["guidance"] == "teacher":
    teacher = {
      "teacher": guidance.classifier_free(
        case.network("teacher"),
        scale=hyper["omega"],
        num_classes=hyper["num_classes"],
      )
    }
  elif hyper["guidance"] == "cfg":
    guided = {
      "omega": hyper["omega"],
      "kappa": hyper["kappa"],
      "guidance_start": hyper["t_start"],
      "guidance_end": hyper["t_end"],
    }
  return losses.mean_flow_loss(
    net,
    jax.random.key(0),
    batch_of(case),
    path=path_of(hyper),
    sample_times=lambda key, n: (case.given["t"], case.given["s"]),
    block=tuple(hyper["block"]),
    norm_power=hyper["norm_power"],
    norm_eps=hyper["norm_eps"],
    num_classes=hyper["num_classes"],
    **teacher,
    **guided,
  )


def consistency(case, net):
  hyper, path = case.hyper, path_of(case.hyper)
  maker = {
    "edm_skip": functools.partial(
      flow_maps.edm_skip, sigma_data=hyper.get("sigma_data")
    ),
    "linear_skip": functools.partial(flow_maps.linear_skip, t_max=path.t_max),
    "hard": flow_maps.hard_boundary,
    "free": flow_maps.free,
    "flow": flow_maps.average_velocity,
  }[hyper["parameterization"]]
  raw = case.network("teacher")
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
    num_classes=hyper.get("num_classes", 0),
  )
  weight = hyper.get("weight", "uniform")
  return losses.consistency_loss(
    net,
    jax.random.key(0),
    batch_of(case),
    path=path,
    sample_times=lambda key, n: (case.given["t"], case.given["s"]),
    flow_map=maker,
    target_fn=case.network("target"),
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


def loss_of(name):
  return next(v for k, v in LOSSES.items() if name.startswith(k))


CASES = sorted(
  pathlib.Path(p).stem
  for k in LOSSES
  for p in glob.glob(str(references.FOLDER / f"{k}*.npz"))
)


def compare(case, name, dtype, value_tolerance, gradient_tolerance):

  def mean_loss(w):
    loss, metrics = loss_of(name)(case, functools.partial(references.stub, w))
    return loss.mean(), (loss, metrics)

  compute = jax.jit(jax.value_and_grad(mean_loss, has_aux=True))
  (_, (loss, metrics)), gradient = compute(case.weights["net"])
  expected = case.out["per_sample"]
  assert loss.dtype == dtype and loss.shape == expected.shape
  assert np.abs(loss - expected).max() <= value_tolerance * expected.max()
  for key, value in case.grad["net"].items():
    error = np.linalg.norm(gradient[key] - value)
    assert error <= gradient_tolerance * np.linalg.norm(value), key
  return metrics


@pytest.mark.parametrize("name", CASES)
def test_float64(name, x64):
  case = references.load(name)
  metrics = compare(case, name, jnp.float64, 1e-9, 1e-9)
  if "raw" in case.mid:
    np.testing.assert_allclose(metrics["raw"], case.mid["raw"].mean())


@pytest.mark.parametrize("name", CASES)
def test_float32(name):
  # `f32_error` is what a plain float32 evaluation of the formula reaches.
  case = references.load(name, jnp.float32)
  limits = [
    max(1e-5, 20 * case.f32_error[part]) for part in ("per_sample", "grad")
  ]
  compare(case, name, jnp.float32, *limits)


def test_every_case_is_run():
  assert len(CASES) == 5 + 2 + 6 + 8
