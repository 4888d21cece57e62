"""Trajectory and discriminator losses equal their reference numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from jaxflow import flow_maps, losses, predictions, solvers, times, weights
from jaxflow.losses import adversarial


def velocity_of(case, denoiser):
  """Return the velocity of a raw EDM network."""
  hyper = case.hyper
  return predictions.as_prediction(
    predictions.edm_denoiser(denoiser, sigma_data=hyper["sigma_data"]),
    references.path_of(hyper),
    source="data",
    target="velocity",
  )


def trajectory(case, networks, *, frozen=True):
  hyper, given = case.hyper, case.given
  batch = references.batch_of(case)
  options = {"denoising_weight": 0.0}
  if "dsm" in hyper:
    batch["noise_denoising"] = given["noise_dsm"]
    options = {"denoising_times": lambda key, n: given["t_dsm"]}
    w = networks["net"].args[0]
    w = jax.lax.stop_gradient(w) if frozen else w
    name = hyper["last_layer"]
    options["last_layer"] = (
      lambda layer: functools.partial(references.stub, w | {name: layer}),
      w[name],
    )
  if hyper.get("gan"):
    options["discriminator"] = networks["disc"]
  return losses.consistency_trajectory_loss(
    networks["net"],
    jax.random.key(0),
    batch,
    path=references.path_of(hyper),
    sample_times=lambda key, n: (given["solver_times"], given["s"]),
    target_fn=networks["target"],
    teacher=velocity_of(case, networks["teacher"]),
    sigma_data=hyper["sigma_data"],
    solver=getattr(solvers, hyper["solver"]),
    distance=getattr(weights, hyper["distance"]),
    **options,
  )


def discriminator_of(case, networks, **options):
  return losses.discriminator_loss(
    networks["disc"],
    jax.random.key(0),
    references.batch_of(case),
    path=references.path_of(case.hyper),
    **options,
  )


def trajectory_discriminator(case, networks):
  return discriminator_of(
    case,
    networks,
    sample_times=lambda key, n: case.given["t"],
    generator=flow_maps.trajectory(
      networks["net"], sigma_data=case.hyper["sigma_data"]
    ),
  )


def one_step_discriminator(case, networks):
  return discriminator_of(
    case,
    networks,
    sample_times=times.Constant(t=1.0),
    generator=flow_maps.average_velocity(networks["net"]),
    criterion=adversarial.logistic,
  )


ADAPTERS = {
  "ctm_h1": trajectory,
  "ctm_h5": trajectory,
  "ctm_dsm": trajectory,
  "ctm_dsm_gan": trajectory,
  "ctm_discriminator": trajectory_discriminator,
  "instaflow_discriminator_logistic": one_step_discriminator,
}
every_case = pytest.mark.parametrize("name", ADAPTERS)


@every_case
def test_float64(name, x64):
  references.check_float64(name, ADAPTERS[name])


@every_case
def test_float32(name):
  references.check_float32(name, ADAPTERS[name])


def test_every_case_is_run():
  assert set(references.cases("ctm_")) <= set(ADAPTERS)


@pytest.mark.parametrize("name", ["ctm_dsm", "ctm_dsm_gan"])
def test_parts_and_their_weights(name, x64):
  case = references.load(name)
  _, metrics, _ = references.evaluate(case, trajectory)
  expected = {"raw": case.mid["ctm"], "denoising": case.mid["dsm"]}
  expected["lam_denoising"] = case.mid["lambda_dsm"]
  if case.hyper["gan"]:
    expected["adversarial"] = case.mid["gan"]
    expected["lam_adversarial"] = case.mid["lambda_gan"]
  assert set(metrics) == set(expected)
  for key, value in expected.items():
    np.testing.assert_allclose(metrics[key], value.mean(), rtol=1e-9)


def test_a_layer_that_is_not_frozen_gives_the_same(x64):
  references.check_float64(
    "ctm_dsm_gan", functools.partial(trajectory, frozen=False)
  )


def test_steps_not_taken_change_nothing(x64):
  def padded(case, networks):
    walk = case.given["solver_times"]
    walk = jnp.concatenate([walk, jnp.repeat(walk[-1:], 12, axis=0)])
    given = case.given | {"solver_times": walk}
    return trajectory(case._replace(given=given), networks)

  references.check_float64("ctm_h5", padded)


@pytest.mark.parametrize("criterion", ["hinge", "logistic"])
def test_heads_are_averaged(criterion):
  rule = getattr(adversarial, criterion)

  def loss_of(heads):
    loss, _ = losses.discriminator_loss(
      lambda x, cond: x[:, heads],
      jax.random.key(0),
      {"data": jnp.array([[0.5, -2.0]]), "noise": jnp.zeros((1, 2))},
      path=references.path_of({"path": {"name": "linear"}}),
      sample_times=lambda key, n: jnp.full(n, 0.5),
      generator=lambda xt, t, s, cond: xt,
      criterion=rule,
    )
    return loss[0]

  both = loss_of(slice(None))
  np.testing.assert_allclose(both, (loss_of(0) + loss_of(1)) / 2, rtol=1e-6)
