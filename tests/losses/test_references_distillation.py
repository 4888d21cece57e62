"""Denoisers and losses on pairs and trajectories equal their reference numbers.

Methods: denoising, score matching, distillation of pairs, progressive
distillation, mid-training, SlimFlow, guidance distillation.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from jaxflow import (
  couplings,
  flow_maps,
  losses,
  paths,
  predictions,
  times,
  weights,
)
from jaxflow.losses import adversarial, perceptual
from jaxflow.methods import METHODS
from jaxflow.training.step import make_loss_fn


def denoising(case, networks):
  hyper = case.hyper
  return losses.denoising_loss(
    networks["net"],
    jax.random.key(0),
    references.batch_of(case),
    path=references.path_of(hyper),
    sample_times=lambda key, n: case.given["t"],
    sigma_data=hyper["sigma_data"],
    distance={"sum": weights.l2_sum, "mean": weights.l2}[hyper["reduce"]],
  )


def score_matching(case, networks):
  weighted = case.hyper.get("weight") == "t_squared"
  return losses.flow_matching_loss(
    networks["net"],
    jax.random.key(0),
    references.batch_of(case),
    path=references.path_of(case.hyper),
    sample_times=lambda key, n: case.given["t"],
    prediction="score",
    weight=weights.uniform if weighted else weights.inverse_square,
  )


def distillation(case, networks):
  hyper = case.hyper
  edm = functools.partial(
    flow_maps.edm_skip, sigma_data=hyper.get("sigma_data", 0.5)
  )
  feature_network = networks.get("feat")
  distance = feature_network and perceptual.feature_distance(feature_network)
  return losses.distillation_loss(
    networks["net"],
    jax.random.key(0),
    references.batch_of(case),
    path=references.path_of(hyper),
    flow_map=edm
    if hyper.get("network") == "edm"
    else flow_maps.average_velocity,
    distance=getattr(
      weights, hyper.get("distance") or hyper.get("reconstruction")
    ),
    perceptual=distance,
    discriminator=networks.get("disc"),
    reconstruction_weight=hyper.get("weight_reconstruction", 1.0),
    perceptual_weight=hyper.get("weight_perceptual", 0.0),
    adversarial_weight=hyper.get("weight_adversarial", 0.0),
  )


def progressive_distillation(case, networks):
  hyper, given = case.hyper, case.given
  path, kind = references.path_of(hyper), hyper["network"]
  student = {"prediction": kind, "sigma_data": hyper["sigma_data"]}
  return losses.progressive_distillation_loss(
    networks["net"],
    jax.random.key(0),
    references.batch_of(case),
    path=path,
    sample_times=lambda key, n: (given["t"], given["m"], given["s"]),
    teacher=predictions.as_prediction(
      networks["teacher"],
      path,
      source=kind,
      target="velocity",
      sigma_data=hyper["sigma_data"],
    ),
    weight=getattr(weights, hyper["weight"]),
    **student,
  )


def mid_training(case, networks):
  hyper, path = case.hyper, references.path_of(case.hyper)
  distances = {"l2_sum": weights.l2_sum, "l2_norm": weights.huber(0.0)}
  return losses.mid_training_loss(
    networks["net"],
    jax.random.key(0),
    references.batch_of(case),
    path=path,
    teacher=predictions.as_prediction(
      networks["teacher"],
      path,
      source="edm",
      target="velocity",
      sigma_data=hyper["sigma_data"],
    ),
    flow_map=functools.partial(
      flow_maps.edm_denoiser, sigma_data=hyper["sigma_data"]
    ),
    grid=lambda n: case.given["times"],
    num_steps=hyper["num_points"],
    order=hyper["order"],
    distance=distances[hyper["distance"]],
    data_plus_noise=hyper["start"] == "data_plus_noise",
  )


def pairs_with_fresh_noise(case):
  given = case.given
  return {
    "data": given["data"],
    "noise": given["pair_noise"],
    "fresh_noise": given["noise"],
  }


def annealed_reflow(case, networks):
  return losses.flow_matching_loss(
    networks["net"],
    jax.random.key(0),
    pairs_with_fresh_noise(case),
    path=paths.Linear(),
    sample_times=lambda key, n: case.given["t"],
    coupling=couplings.Annealed(end=1.0),
    progress=jnp.asarray(1 - case.hyper["beta"]),
  )


def flow_guided_distillation(case, networks):
  return losses.flow_guided_distillation_loss(
    networks["net"],
    jax.random.key(0),
    pairs_with_fresh_noise(case),
    path=paths.Linear(),
    sample_times=lambda key, n: 1 - case.given["tau"],
    teacher=networks["teacher"],
    start_time=case.hyper["t"],
  )


def guidance_distillation(case, networks):
  batch = references.batch_of(case)
  return losses.guidance_distillation_loss(
    networks["net"],
    jax.random.key(0),
    batch | {"cond": {"label": batch["cond"], "omega": case.given["omega"]}},
    path=paths.Linear(),
    sample_times=lambda key, n: case.given["t"],
    teacher=networks["teacher"],
    null_cond=case.hyper["num_classes"],
  )


LOSSES = {
  "edm_denoiser": denoising,
  "score_matching": score_matching,
  "kd": distillation,
  "instaflow_l": distillation,
  "pd": progressive_distillation,
  "cmt": mid_training,
  "slimflow_annealed": annealed_reflow,
  "slimflow_guided": flow_guided_distillation,
  "guidance_distillation": guidance_distillation,
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


def test_denoising_needs_noise_levels():
  with pytest.raises(ValueError, match="give VarianceExploding"):
    losses.denoising_loss(
      lambda xt, t, s, cond: xt,
      jax.random.key(0),
      {"data": jnp.zeros((2, 3))},
      path=paths.Linear(),
      sample_times=times.Uniform(),
    )


def test_every_case_is_run():
  assert len(CASES) == 2 + 2 + 2 + 2 + 2 + 2 + 2 + 1


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"perceptual_weight": 1.0}, "perceptual=None"),
    ({"adversarial_weight": 0.1}, "discriminator=None"),
  ],
)
def test_a_term_needs_its_function(options, words):
  batch = {"data": jnp.zeros((2, 3)), "noise": jnp.zeros((2, 3))}
  with pytest.raises(ValueError, match=words):
    losses.distillation_loss(
      lambda xt, t, s, cond: xt,
      jax.random.key(0),
      batch,
      path=paths.Linear(),
      flow_map=flow_maps.average_velocity,
      **options,
    )


def test_heads_are_averaged():
  real, fake = jnp.array([[0.5, 3.0]]), jnp.array([[-2.0, 1.0]])
  # relu(1 - 0.5) + relu(1 - 2) and relu(1 - 3) + relu(1 + 1).
  assert adversarial.hinge.discriminator(real, fake).tolist() == [1.25]
  assert adversarial.hinge.generator(fake).tolist() == [0.5]
  value = adversarial.logistic.generator(jnp.array([-200.0]))
  np.testing.assert_allclose(value, [200.0])


def test_the_share_of_pairs_by_round():
  shares = [couplings.synthetic_share(j, 6) for j in range(1, 7)]
  expected = references.table("schedules")["reflow/synthetic_ratio"]
  np.testing.assert_allclose(shares, expected, rtol=1e-12)


def test_triples_are_neighbours_of_a_grid_twice_as_fine():
  law = times.AdjacentTriple(grid=times.karras_grid, num_steps=8)
  drawn = np.stack(law(jax.random.key(0), 200), axis=1)
  points = times.karras_grid(17)
  steps = {tuple(map(float, points[i : i + 3])) for i in range(0, 16, 2)}
  assert {tuple(map(float, row)) for row in drawn} == steps
  # The times of the case, t = Karras(i / 8), m and s, are among them.
  given = references.load("pd_edm", jnp.float32).given
  case = np.stack([given["t"], given["m"], given["s"]], axis=1)
  nearest = np.array(sorted(steps))
  gap = np.abs(case[:, None] / nearest[None] - 1).max(2).min(1)
  assert gap.max() < 1e-5


@pytest.mark.parametrize("schedule", ["linear", "cosine", "exponential"])
def test_annealing_schedules(schedule, x64):
  table, total = references.table("schedules"), 400_000
  coupling = couplings.Annealed(schedule=schedule, end=300_000 / total)
  np.testing.assert_allclose(
    coupling.beta(jnp.asarray(table["slimflow/step"]) / total),
    table[f"slimflow/beta_{schedule}"],
    rtol=1e-9,
    atol=1e-15,
  )


def test_annealed_noise_has_unit_variance():
  pair = jax.random.normal(jax.random.key(0), (2**16, 1))
  draw = couplings.Annealed(end=1.0).at(jnp.asarray(0.4))
  noise = draw({"data": pair, "noise": pair}, jax.random.key(1))
  # Four standard errors of a variance, sqrt(2 / 2^16).
  assert abs(float(noise.var()) - 1) < 4 * (2 / 2**16) ** 0.5


def test_methods_on_pairs_refuse_data_alone():
  options = {"path": paths.Linear(), "sample_times": times.Uniform()}
  loss_fn = make_loss_fn(
    METHODS["reflow"], lambda p, x, t, s, c, key=None: p * x, options
  )
  with pytest.raises(ValueError, match="data are no pairs"):
    loss_fn(1.0, None, jax.random.key(0), {"data": jnp.zeros((2, 3))})
