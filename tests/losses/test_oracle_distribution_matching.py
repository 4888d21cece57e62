"""Distribution matching where the scores are known, and its parts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from test_oracle import MEAN as CENTRE
from test_oracle import STD, batch_of

from jaxflow import flow_maps, losses, paths, times
from jaxflow.losses.distribution_matching import ratios_in_bins

LINEAR = paths.Linear()
MEAN = np.array(CENTRE)
TEACHER = oracle.Gaussian(LINEAR, MEAN, STD)
SIZE = 4096
UNIFORM = times.Uniform(t_min=0.02, t_max=0.98)


def generator_of(mean, std, shift=0.0):
  """Return a network whose jump from noise is N(mean + shift, std^2)."""

  def network(xt, t, s, cond):
    return xt - (jnp.broadcast_to(mean, xt.shape) + shift + std * xt)

  return network


def matching(model_fn, batch, fake_score, **options):
  given = {"path": LINEAR, "sample_times": UNIFORM} | options
  return losses.distribution_matching_loss(
    model_fn,
    jax.random.key(1),
    batch,
    flow_map=flow_maps.average_velocity,
    teacher=TEACHER.velocity,
    fake_score=fake_score,
    **given,
  )


def test_equal_scores_leave_samples_where_they_are(x64):
  def mean(shift):
    network = generator_of(MEAN + 1.0, STD, shift)
    loss, metrics = matching(network, batch_of(64), TEACHER.velocity)
    return loss.mean(), metrics

  gradient, metrics = jax.grad(mean, has_aux=True)(0.0)
  assert gradient == metrics["raw"] == metrics["score_gap"] == 0


def test_gradient_has_the_sign_of_the_error(x64):
  """Of samples beside the data, with their exact score."""
  for off in (0.3, -0.3):
    own = oracle.Gaussian(LINEAR, MEAN + off, STD)

    def mean(shift, off=off, own=own):
      network = generator_of(MEAN + off, STD, shift)
      return matching(network, batch_of(SIZE), own.velocity)[0].mean()

    slope = jax.grad(mean)(0.0)
    assert slope * off > 0 and abs(slope) > 0.1


def test_fake_score_is_at_rest_where_it_is_exact(x64):
  """Its gradient is of mean zero there, and not a little beside."""
  mean, std = MEAN + 0.5, 0.7
  exact = oracle.Gaussian(LINEAR, mean, std)

  def slope(off):
    def total(shift):
      loss, _ = losses.fake_score_loss(
        lambda *given: exact.velocity(*given) + shift,
        jax.random.key(2),
        batch_of(SIZE),
        path=LINEAR,
        sample_times=UNIFORM,
        generator=flow_maps.average_velocity(generator_of(mean, std)),
      )
      return loss.mean()

    return jax.grad(total)(off)

  # Four standard errors of a mean of errors of standard deviation near one.
  assert abs(slope(0.0)) < 8 / np.sqrt(2 * SIZE)
  np.testing.assert_allclose(slope(0.5) - slope(0.0), 1.0, rtol=1e-9)


@pytest.mark.parametrize("divergence", ["kl", "js", "sh", "jf"])
def test_a_blind_critic_weighs_nothing(divergence, x64):
  """Equal ratios make every divergence the reverse KL."""
  own = oracle.Gaussian(LINEAR, MEAN + 0.3, STD)
  network, batch = generator_of(MEAN + 0.3, STD), batch_of(64)
  expected, _ = matching(network, batch, own.velocity)
  found, _ = matching(
    network,
    batch,
    own.velocity,
    critic=lambda xt, t, cond: jnp.full_like(t, 0.5),
    divergence=divergence,
  )
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_bins_by_hand():
  """Times of bins 0, 0, 3: the end is of the last bin, empty bins stay."""
  bins = jnp.array([1.0, 2.0, 3.0, 4.0])
  t = jnp.array([0.0, 0.2, 1.0])
  ratio = jnp.array([3.0, 5.0, 14.0])
  new, own = ratios_in_bins(bins, ratio, t, LINEAR, 0.9)
  np.testing.assert_allclose(new, [1.3, 2.0, 3.0, 5.0], rtol=1e-5)
  np.testing.assert_allclose(own, [1.3, 1.3, 5.0], rtol=1e-5)


def test_generators_of_several_steps_start_from_noised_data(x64):
  seen = {}

  def jump(xt, t, s, cond):
    seen.update(xt=xt, t=t, s=s)
    return 0 * xt

  batch = batch_of(8)
  losses.fake_score_loss(
    TEACHER.velocity,
    jax.random.key(0),
    batch,
    path=LINEAR,
    sample_times=UNIFORM,
    generator=jump,
    start_times=times.Constant(t=0.25),
  )
  expected = 0.75 * batch["data"] + 0.25 * batch["noise"]
  np.testing.assert_allclose(seen["xt"], expected)
  assert (seen["t"] == 0.25).all() and (seen["s"] == 0).all()


def test_samples_and_data_are_the_two_sides_of_the_critic(x64):
  """Its loss is of data as real; the generator gets no gradient."""
  batch, side = batch_of(32), functools.partial(jnp.full, 32)

  def total(scale, sharp=1.0):
    loss, metrics = losses.fake_score_loss(
      lambda xt, t, s, cond: 0 * xt,
      jax.random.key(0),
      {**batch, "data": 0 * batch["data"] + 5.0, "noise_t": 0 * batch["data"]},
      path=LINEAR,
      sample_times=times.Constant(t=0.0),
      generator=lambda xt, t, s, cond: scale * jnp.ones_like(xt),
      critic=lambda xt, t, cond: sharp * xt[:, 0],
      discriminator_weight=0.5,
    )
    return loss.mean(), metrics

  (value, metrics), slope = jax.value_and_grad(total, has_aux=True)(2.0)
  assert slope == 0
  assert metrics["real_logit"] == 5 and metrics["fake_logit"] == 2
  sides = jax.nn.softplus(-side(5.0)) + jax.nn.softplus(side(2.0))
  # The velocity from samples to no noise is minus the samples.
  np.testing.assert_allclose(value, 4 + 0.5 * sides.mean(), rtol=1e-12)


@pytest.mark.parametrize(
  "options", [{"adversarial_weight": 1.0}, {"divergence": "kl"}], ids=str
)
def test_terms_need_a_critic(options):
  with pytest.raises(ValueError, match="critic=None"):
    matching(generator_of(0.0, 1.0), batch_of(4), TEACHER.velocity, **options)


def test_divergences_have_names():
  with pytest.raises(ValueError, match="divergence='tv': give one of rkl, kl"):
    matching(
      generator_of(0.0, 1.0),
      batch_of(4),
      TEACHER.velocity,
      critic=lambda xt, t, cond: t,
      divergence="tv",
    )
