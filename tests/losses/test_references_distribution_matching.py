"""Distribution matching losses equal their reference numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from jaxflow import flow_maps, guidance, losses, paths, predictions, weights
from jaxflow.losses import distribution_matching

CASES = references.cases("dmd_")
DISCRIMINATORS = ("weight_adversarial", "weight_discriminator")


def is_edm(case):
  return case.hyper["network"] == "edm"


def velocity_of(case, network):
  """Return a network of the file as one of the velocity."""
  if not is_edm(case):
    return network
  return predictions.as_prediction(
    network,
    references.path_of(case.hyper),
    source="edm",
    target="velocity",
    sigma_data=case.hyper["sigma_data"],
  )


def flow_map_of(case):
  if not is_edm(case):
    return flow_maps.average_velocity
  return functools.partial(
    flow_maps.edm_denoiser, sigma_data=case.hyper["sigma_data"]
  )


def critic_of(case, networks):
  """Return the head on the hidden layer of a score network, or None."""
  if not any(name in case.hyper for name in DISCRIMINATORS):
    return None
  score = networks[case.hyper["gan_features"]]
  # An output that is the hidden layer itself.
  hidden = {"W2": jnp.eye(8), "b2": jnp.zeros(8)}

  def critic(xt, t, cond):
    if is_edm(case):
      xt, t, _ = predictions.edm_inputs(xt, t, t, case.hyper["sigma_data"])
    seen = {**score.args[0], **hidden}
    pre = (
      xt.reshape(len(xt), -1) @ seen["Wx"]
      + references.features(t) @ seen["Wt"]
      + seen["b1"][None]
      + seen["E"][cond]
    )
    return networks["disc"](jnp.tanh(pre))

  return critic


def batch_of(case):
  names = {
    "noise": "noise",
    "noise_t": "noise_t",
    "noise_gan": "noise_critic",
    "noise_real": "noise_real",
    "noise_r1": "noise_smoothness",
    "label": "cond",
  }
  batch = {new: case.given[k] for k, new in names.items() if k in case.given}
  data = case.given.get("data")
  return batch | {"data": batch["noise"] if data is None else data}


def law(times):
  return None if times is None else lambda key, n: times


def generator(case, networks):
  hyper, given = case.hyper, case.given
  teacher = guidance.classifier_free(
    velocity_of(case, networks["teacher"]),
    scale=hyper["omega"],
    null_cond=hyper["num_classes"],
  )
  return losses.distribution_matching_loss(
    networks["net"],
    jax.random.key(0),
    batch_of(case),
    path=references.path_of(hyper),
    sample_times=law(given["t"]),
    flow_map=flow_map_of(case),
    teacher=teacher,
    fake_score=velocity_of(case, networks["fake"]),
    critic=critic_of(case, networks),
    adversarial_weight=hyper.get("weight_adversarial", 0.0),
    critic_times=law(given.get("t_gan")),
    divergence=hyper.get("f_divergence", "rkl"),
    ratio_decay=hyper.get("ratio_decay", 0.0),
    bins=given.get("bins"),
  )


def fake_score(case, networks):
  hyper, given = case.hyper, case.given
  options = {}
  if is_edm(case):
    options["loss_space"] = "data"
    options["weight"] = weights.karras(hyper["sigma_data"])
  if "t_gan" in given:
    # The law of t' is asked first, that of t_r second.
    drawn = iter((given["t_gan"], given["t_real"]))
    options["critic_times"] = lambda key, n: next(drawn)
  return losses.fake_score_loss(
    velocity_of(case, networks["fake"]),
    jax.random.key(0),
    batch_of(case),
    path=references.path_of(hyper),
    sample_times=law(given["t"]),
    generator=flow_map_of(case)(networks["net"]),
    critic=critic_of(case, networks),
    discriminator_weight=hyper.get("weight_discriminator", 0.0),
    smoothness_weight=hyper.get("weight_r1", 0.0),
    smoothness_noise=hyper.get("r1_noise", 0.0),
    **options,
  )


def adapter(case, networks):
  """Compute the loss of the network that the file trains; drop the memory."""
  compute = generator if "omega" in case.hyper else fake_score
  return compute(case, networks)[:2]


@pytest.mark.parametrize("name", CASES)
def test_float64(name, x64):
  references.check_float64(name, adapter)


@pytest.mark.parametrize("name", CASES)
def test_float32(name):
  if name != "dmd_fake_gan_r1":
    references.check_float32(name, adapter)
    return
  case = references.load(name, jnp.float32)
  # The bias moves both logits of the last term alike: its gradient is what is
  # left of numbers some thousand times as large.
  bias = case.grad["disc"].pop("d2")
  limits = [max(1e-5, 20 * x) for x in case.f32_error.values()]
  references.check(case, adapter, jnp.float32, *limits)
  gradient = references.evaluate(case, adapter)[2]
  np.testing.assert_allclose(gradient["disc"]["d2"], bias, atol=1e-5)


def test_every_case_is_run():
  assert len(CASES) == 7


@pytest.mark.parametrize("name", [x for x in CASES if "generator" in x])
def test_parts_of_the_generator(name, x64):
  case = references.load(name)
  _, metrics, _ = references.evaluate(case, adapter)
  np.testing.assert_allclose(
    metrics["raw"], case.mid["matching"].mean(), rtol=1e-9
  )
  if "adversarial" in case.mid:
    np.testing.assert_allclose(
      metrics["adversarial"], case.mid["adversarial"].mean(), rtol=1e-9
    )


def test_memory_of_the_ratios(x64):
  case = references.load("dmd_generator_js")
  networks = {role: case.network(role) for role in ("net", "fake", "teacher")}
  networks["disc"] = functools.partial(
    references.discriminator, case.weights["disc"]
  )
  _, _, memory = generator(case, networks)
  np.testing.assert_allclose(memory["bins"], case.mid["bins"], rtol=1e-9)


def test_weights_of_the_divergences(x64):
  table = references.table("schedules_2026")
  ratio = jnp.asarray(table["f_divergence/ratio"])
  for name, weigh in distribution_matching.DIVERGENCES.items():
    np.testing.assert_allclose(
      weigh(ratio), table[f"f_divergence/{name}"], rtol=1e-12
    )


def test_path_of_the_files():
  kinds = {type(references.path_of(references.hyper(x))) for x in CASES}
  assert kinds == {paths.Linear, paths.VarianceExploding}
