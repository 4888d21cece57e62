"""Decoupled MeanFlow equals its reference numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from test_oracle import batch_of, gaussian, within

from jaxflow import losses, paths, times

NAME = "decoupled_meanflow"
LINEAR = paths.Linear()


def adapter(case, networks):
  hyper, given = case.hyper, case.given
  batch = references.batch_of(case) | {"noise_flow": given["noise_flow"]}
  return losses.decoupled_mean_flow_loss(
    networks["net"],
    jax.random.key(0),
    batch,
    path=references.path_of(hyper),
    sample_times=lambda key, n: (given["t"], given["s"]),
    flow_times=lambda key, n: given["t_flow"],
    norm_eps=hyper["norm_eps"],
    log_weight=networks["weight"],
    null_cond=hyper["num_classes"],
  )


def test_float64(x64):
  references.check_float64(NAME, adapter)
  case = references.load(NAME)
  _, metrics, _ = references.evaluate(case, adapter)
  for name in ("raw_flow", "raw_interval"):
    np.testing.assert_allclose(metrics[name], case.mid[name].mean(), rtol=1e-9)


def test_float32():
  references.check_float32(NAME, adapter)


def test_it_is_ln_eps_at_the_solution(x64):
  exact = gaussian(LINEAR)

  def loss(model_fn):
    return losses.decoupled_mean_flow_loss(
      model_fn,
      jax.random.key(1),
      batch_of(64),
      path=LINEAR,
      sample_times=times.SortedPair(law=within(LINEAR, 0, 1)),
      flow_times=within(LINEAR, 0, 1),
      teacher=exact.velocity,
    )[0]

  np.testing.assert_allclose(loss(exact.average_velocity), np.log(0.01))
  assert loss(exact.velocity).max() > np.log(0.01) + 0.1


def test_its_terms_are_those_of_flow_matching_and_mean_flow(x64):
  batch = batch_of(16)
  t, s, r = (
    jnp.linspace(0.5, 1, 16),
    jnp.linspace(0, 0.5, 16),
    jnp.full(16, 0.3),
  )
  given = {"path": LINEAR, "sample_times": lambda key, n: (t, s)}

  def network(xt, t, s, cond):
    return jnp.sin(xt) * paths.expand(t - 0.5 * s, xt)

  _, found = losses.decoupled_mean_flow_loss(
    network,
    jax.random.key(0),
    batch | {"noise_flow": batch["noise"]},
    flow_times=lambda key, n: r,
    **given,
  )
  jumps, _ = losses.mean_flow_loss(
    network,
    jax.random.key(0),
    batch,
    block=(1, 1),
    norm_power=0.0,
    reduction="mean",
    **given,
  )
  flow, _ = losses.flow_matching_loss(
    lambda xt, t, s, cond: network(xt, t, t, cond),
    jax.random.key(0),
    batch,
    path=LINEAR,
    sample_times=lambda key, n: r,
  )
  np.testing.assert_allclose(found["raw_interval"], jumps.mean(), rtol=1e-12)
  np.testing.assert_allclose(found["raw_flow"], flow.mean(), rtol=1e-12)


def test_guidance_adds_the_difference_of_its_own_velocities(x64):
  """F is the label, 7 without: v + kappa (y - 7), in both terms."""
  labels = jnp.array([1, 2, 7])

  def network(xt, t, s, cond):
    return paths.expand(1.0 * cond, xt) + 0 * xt

  _, metrics = losses.decoupled_mean_flow_loss(
    network,
    jax.random.key(0),
    {
      "data": jnp.zeros((3, 2)),
      "noise": jnp.full((3, 2), 3.0),
      "noise_flow": jnp.full((3, 2), 5.0),
      "cond": labels,
    },
    path=LINEAR,
    sample_times=times.SortedPair(law=times.Uniform()),
    flow_times=times.Uniform(),
    kappa=0.5,
    null_cond=7,
  )
  guided = np.array([0.5 * (1 - 7), 0.5 * (2 - 7), 0.0])
  for name, v in (("raw_interval", 3.0), ("raw_flow", 5.0)):
    expected = (np.asarray(labels) - v - guided) ** 2
    np.testing.assert_allclose(metrics[name], expected.mean(), rtol=1e-12)


@pytest.mark.parametrize("kappa", [0.0, 0.25, 0.6])
def test_guidance_scale_at_its_own_solution(kappa, x64):
  """Velocities are the label y, and 0 without: F_y = y / (1 - kappa).

  y / (1 - kappa) = y + kappa y / (1 - kappa); any other F_y leaves an error.
  """
  null, labels = 7, jnp.array([1, 2, 7])
  data = jnp.array([[-1.0], [-2.0], [0.0]])  # v = noise - data, of noise 0.

  def errors(scale):
    def network(xt, t, s, cond):
      y = jnp.where(cond == null, 0, scale * cond)
      return paths.expand(y, xt) + 0 * xt

    _, metrics = losses.decoupled_mean_flow_loss(
      network,
      jax.random.key(0),
      {"data": data, "noise": 0 * data, "cond": labels},
      path=LINEAR,
      sample_times=times.SortedPair(law=times.Uniform()),
      flow_times=times.Uniform(),
      kappa=kappa,
      null_cond=null,
    )
    return max(metrics["raw_interval"], metrics["raw_flow"])

  assert errors(1 / (1 - kappa)) < 1e-25
  assert errors(1 + kappa + 0.01) > 1e-5
