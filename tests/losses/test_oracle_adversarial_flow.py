"""Adversarial flow against arithmetic: blind and linear discriminators."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_oracle import batch_of

from jaxflow import flow_maps, losses, paths, times
from jaxflow.losses import adversarial

LINEAR = paths.Linear()
SIZE = 16
PAIRS = times.TruncatedPair(law=times.Uniform(), t_min=0.0, t_max=1.0)
BOTH = ("generator", "discriminator")


def network(x, t, s, cond):
  return jnp.sin(2 * x + (t - 3 * s)[:, None])


def play(player, judge, batch=None, sample_times=PAIRS, **options):
  """Return loss and metrics of a player."""
  jump = flow_maps.average_velocity
  common = {"path": LINEAR, "sample_times": sample_times, **options}
  given = jax.random.key(1), batch_of(SIZE) if batch is None else batch
  if player == "generator":
    return losses.adversarial_flow_loss(
      network, *given, flow_map=jump, discriminator=judge, **common
    )
  return losses.discriminator_loss(
    judge,
    *given,
    generator=jump(network),
    **{"criterion": adversarial.relativistic} | common,
  )


def constant(x, cond, s, value=3.0):
  """Return the logits of a discriminator that sees nothing."""
  return jnp.full(len(x), value, x.dtype)


@pytest.mark.parametrize("player", BOTH)
def test_a_blind_discriminator_costs_ln_2(player, x64):
  options = {"transport_weight": 0.0} if player == "generator" else {}
  loss, _ = play(player, constant, **options)
  np.testing.assert_allclose(loss, math.log(2), rtol=1e-15)


def test_centre_and_penalties_of_a_blind_discriminator(x64):
  options = {"penalty": 0.25, "centre": 0.01}
  loss, metrics = play("discriminator", constant, **options)
  np.testing.assert_allclose(loss, math.log(2) + 0.01 * 6.0**2, rtol=1e-14)
  assert metrics["penalty"] == 0


def test_penalties_of_a_linear_discriminator(x64):
  """They are those of its slope w along each noise, whatever the step."""
  generator = np.random.default_rng(0)
  w = generator.standard_normal(2)
  noises = generator.standard_normal((2, SIZE, 2))
  names = ("noise_r1", "noise_r2")
  batch = batch_of(SIZE) | dict(zip(names, noises, strict=True))
  gap = np.linspace(0, 0.9, SIZE)
  t = jnp.full(SIZE, 0.9)

  def judge(x, cond, s):
    return x @ w

  compute = functools.partial(
    play, "discriminator", judge, batch, lambda key, n: (t, t - gap)
  )
  plain, _ = compute()
  for step in (0.01, 0.5):
    options = {"penalty": 0.25, "penalty_step": step}
    loss, metrics = compute(**options, penalty_block=(4, 2))
    square = (noises @ w) ** 2
    term = 0.25 * np.maximum(gap, 1e-3) * (square[0] + square[1])
    rows = np.arange(SIZE) % 4 < 2
    np.testing.assert_allclose(loss - plain, np.where(rows, 2 * term, 0))
    np.testing.assert_allclose(metrics["penalty"], term[rows].mean())


@pytest.mark.parametrize("player", BOTH)
def test_the_discriminator_sees_points_and_labels_at_their_times(player, x64):
  """Of D(x) = sum(x) + 3 s + y, that of both sides shows where x is."""
  t, s = jnp.linspace(0.5, 1, SIZE), jnp.linspace(0.4, 0, SIZE)
  end = jax.random.normal(jax.random.key(9), (SIZE, 2))
  label = jnp.arange(SIZE)
  batch = batch_of(SIZE) | {"noise_end": end, "cond": label}
  seen = []

  def judge(x, cond, s):
    seen.append((x, cond, s))
    return x.sum(1)

  play(player, judge, batch, lambda key, n: (t, s))
  assert len(seen) == 2
  xt = (1 - t)[:, None] * batch["data"] + t[:, None] * batch["noise"]
  real = (1 - s)[:, None] * batch["data"] + s[:, None] * end
  fake = xt - (t - s)[:, None] * network(xt, t, s, label)
  order = {"generator": (fake, real), "discriminator": (real, fake)}[player]
  for (x, cond, time), expected in zip(seen, order, strict=True):
    np.testing.assert_allclose(x, expected, rtol=1e-12)
    np.testing.assert_array_equal(cond, label)
    np.testing.assert_array_equal(time, s)


@pytest.mark.parametrize(
  ("progress", "weight"), [(None, 0.2), (0, 0.2), (0.5, 0.1025), (1, 0.005)]
)
def test_transport_decays_as_a_cosine(progress, weight, x64):
  t, s = jnp.full(SIZE, 0.75), jnp.full(SIZE, 0.25)
  batch = batch_of(SIZE)
  progress = None if progress is None else jnp.asarray(progress, float)
  loss, metrics = play(
    "generator",
    None,
    batch,
    lambda key, n: (t, s),
    progress=progress,
    adversarial_weight=0.0,
  )
  xt = 0.25 * batch["data"] + 0.75 * batch["noise"]
  # ((t - s) F)^2 / (t - s).
  raw = 0.5 * (network(xt, t, s, None) ** 2).mean(1)
  np.testing.assert_allclose(loss, weight * raw, rtol=1e-12)
  np.testing.assert_allclose(metrics["raw"], raw.mean(), rtol=1e-12)


def test_jumps_of_no_length_are_finite(x64):
  t = jnp.full(SIZE, 0.5)
  loss, _ = play("generator", constant, sample_times=lambda key, n: (t, t))
  np.testing.assert_allclose(loss, math.log(2), rtol=1e-12)


def test_jumps_to_the_data_have_both_forms(x64):
  """At s = t_min the pair says no more than t: real points are the data."""
  t, s = jnp.linspace(0.5, 1, SIZE), jnp.zeros(SIZE)

  def judge(x, cond, s=None):
    return x.sum(1)

  options = {"penalty": 0.25, "centre": 0.01}
  pair, _ = play(
    "discriminator", judge, sample_times=lambda key, n: (t, s), **options
  )
  one, _ = play(
    "discriminator", judge, sample_times=lambda key, n: t, **options
  )
  np.testing.assert_allclose(pair, one, rtol=1e-12)


def test_relativistic_criterion():
  real, fake = jnp.array([[2.0, -1.0]]), jnp.array([[0.5, 1.0]])
  rule = adversarial.relativistic
  # Softplus of the differences, averaged over both heads.
  mine = (math.log1p(math.exp(-1.5)) + math.log1p(math.exp(2.0))) / 2
  its = (math.log1p(math.exp(1.5)) + math.log1p(math.exp(-2.0))) / 2
  np.testing.assert_allclose(rule.discriminator(real, fake), [mine], rtol=1e-6)
  np.testing.assert_allclose(rule.generator(fake, real), [its], rtol=1e-6)


def test_distillation_by_the_relativistic_criterion(x64):
  """The generator of pairs is compared with their data."""
  batch = batch_of(SIZE)
  loss, _ = losses.distillation_loss(
    network,
    jax.random.key(0),
    batch,
    path=LINEAR,
    flow_map=flow_maps.average_velocity,
    discriminator=lambda x, cond: x.sum(1),
    criterion=adversarial.relativistic,
    reconstruction_weight=0.0,
    adversarial_weight=1.0,
  )
  noise, ones = batch["noise"], jnp.ones(SIZE)
  made = noise - network(noise, ones, 0 * ones, None)
  expected = np.log1p(np.exp((batch["data"] - made).sum(1)))
  np.testing.assert_allclose(loss, expected, rtol=1e-12)


@pytest.mark.parametrize("criterion", ["hinge", "logistic", "relativistic"])
def test_without_transport_it_is_insta_flow_by_its_discriminator(
  criterion, x64
):
  """Of jumps from noise to data, with the adversarial term alone."""

  def judge(x, cond, s=None):
    return x.sum(1)

  batch, rule = batch_of(SIZE), getattr(adversarial, criterion)
  ones = jnp.ones(SIZE)
  mine, _ = play(
    "generator",
    judge,
    batch,
    lambda key, n: (ones, 0 * ones),
    criterion=rule,
    transport_weight=0.0,
  )
  its, _ = losses.distillation_loss(
    network,
    jax.random.key(0),
    batch,
    path=LINEAR,
    flow_map=flow_maps.average_velocity,
    discriminator=judge,
    criterion=rule,
    reconstruction_weight=0.0,
    adversarial_weight=1.0,
  )
  np.testing.assert_allclose(mine, its, rtol=1e-12)


def test_a_weight_needs_a_discriminator():
  with pytest.raises(ValueError, match=r"discriminator=None with adv.*=1\.0"):
    play("generator", None)


def test_penalties_need_whole_blocks():
  with pytest.raises(ValueError, match=r"no multiple of the block \(3, 1\)"):
    play("discriminator", constant, penalty=1.0, penalty_block=(3, 1))
