"""Flow-anchored consistency at the exact solution, and its edges."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from test_oracle import MEAN, STD, batch_of, gradients, within, z_score

from jaxflow import flow_maps, losses, paths, sampling, times

LINEAR = paths.Linear()
EXACT = oracle.Gaussian(LINEAR, MEAN, STD)


def anchored(model_fn, *, size=64, **options):
  options = {"sample_times": within(LINEAR)} | options
  return losses.flow_anchored_consistency_loss(
    model_fn,
    jax.random.key(1),
    batch_of(size),
    path=options.pop("path", LINEAR),
    **options,
  )


def two_branches(x, t, s, cond):
  """The exact network of one time: negative ones are the velocity's."""
  flow = t < 0
  time = jnp.abs(t)
  velocity = EXACT.velocity(x, time)
  average = EXACT.average_velocity(x, time, jnp.zeros_like(t))
  return jnp.where(flow[:, None], velocity, average)


@pytest.mark.parametrize(
  ("network", "expanded"),
  [(EXACT.average_velocity, False), (two_branches, True)],
  ids=["two times", "expanded"],
)
def test_everything_vanishes_with_an_exact_teacher(network, expanded, x64):
  compute = jax.jit(
    functools.partial(anchored, teacher=EXACT.velocity, expanded=expanded),
    static_argnums=0,
  )
  loss, metrics = compute(network)
  assert jnp.abs(loss).max() < 1e-12 and metrics["raw"] < 1e-24
  # The velocity is no average velocity: only the anchor is content with it.
  loss, metrics = compute(EXACT.velocity)
  assert metrics["raw"] > 1e-4
  assert (metrics["raw_flow"] < 1e-12) == (not expanded)


def consistency(model_fn, **options):
  """Return eq. (5) without eq. (2), in its gradient: what p takes away."""
  both, _ = anchored(model_fn, **options)
  alone, _ = anchored(model_fn, **options | {"relaxation": 1e-30})
  return both - alone, {}


def test_gradient_of_samples_vanishes():
  """Unclipped, g is linear in the velocity of the sample."""

  def loss(model_fn):
    return consistency(model_fn, size=2**14, norm_power=0.0, clip=0.0)

  assert np.abs(z_score(gradients(loss, EXACT.average_velocity))).max() < 4
  assert np.abs(z_score(gradients(loss, EXACT.velocity))).max() > 8


def wave(scale, x, t, s, cond):
  return scale * jnp.sin(3 * x + t[:, None]) + 4 * x


def test_target_is_relaxed_and_clipped():
  """The gradient is 2 (1 - (1 - t)^p) clip(g) / d, weighted, times b's."""
  t = jnp.array([0.0, 0.25, 0.9])
  options = {
    "size": 3,
    "sample_times": lambda key, n: t,
    "norm_power": 0.0,
    "relaxation": 0.5,
  }
  batch = batch_of(3)
  v = batch["noise"] - batch["data"]
  xt = (1 - t[:, None]) * batch["data"] + t[:, None] * batch["noise"]
  zero = jnp.zeros_like(t)
  b, db = jax.jvp(
    lambda x, t: wave(1.0, x, t, zero, None), (xt, t), (v, jnp.ones_like(t))
  )
  g = b - v + t[:, None] * db
  assert (jnp.abs(g) > 1).any()

  def value(scale, clip):
    network = functools.partial(wave, scale)
    return consistency(network, clip=clip, **options)[0]

  for clip in (1.0, 0.0):
    bounded = jnp.clip(g, -1, 1) if clip else g
    share = 1 - (1 - t) ** 0.5
    moved = jnp.sin(3 * xt + t[:, None])
    expected = (2 * share[:, None] * bounded * moved).mean(1)
    expected = jnp.sin(jnp.pi / 2 * t) * expected
    found = jax.jacobian(functools.partial(value, clip=clip))(1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_differences_take_the_place_of_the_jvp(x64):
  """Central ones are of second order in their step."""

  def loss(**options):
    return losses.flow_anchored_consistency_loss(
      lambda xt, t, s, cond: jnp.sin(xt) * jnp.exp(t - s)[:, None],
      jax.random.key(0),
      batch_of(32),
      path=paths.Linear(),
      sample_times=times.Uniform(t_min=0.2, t_max=0.8),
      **options,
    )[0]

  coarse, fine = (
    jnp.abs(loss(derivative="central", difference_step=h) - loss()).max()
    for h in (0.02, 0.01)
  )
  assert abs(np.log2(coarse / fine) - 2) < 0.1


def test_a_network_of_zeros_has_a_gradient():
  def mean(scale):
    loss, _ = anchored(lambda x, t, s, cond: scale * x, size=8)
    return loss.mean()

  value, slope = jax.value_and_grad(mean)(0.0)
  assert jnp.isfinite(value) and jnp.isfinite(slope) and slope != 0
  assert abs(slope) < 100


def test_cosine_is_of_channels(x64):
  """Of one channel the distance of two signs is 0 or 2, of a picture a mean."""
  data = jnp.zeros((1, 2, 1, 1))
  noise = jnp.array([1.0, -2.0]).reshape(1, 2, 1, 1)
  _, metrics = losses.flow_anchored_consistency_loss(
    lambda x, t, s, cond: jnp.ones_like(x),
    jax.random.key(0),
    {"data": data, "noise": noise},
    path=LINEAR,
    sample_times=times.Constant(t=0.5),
  )
  # Errors 0 and 3; cosines 1 and -1.
  np.testing.assert_allclose(metrics["raw_flow"], 9 / 2 + 1)


def test_two_calls_keep_the_law():
  n = 2**14
  batch = batch_of(n)
  x = sampling.Consistency()(
    flow_maps.average_velocity(EXACT.average_velocity),
    batch["noise"],
    jnp.array([1.0, 0.5, 0.0]),
    path=LINEAR,
    key=jax.random.key(0),
  )
  assert np.abs(z_score(x - jnp.asarray(MEAN)[None])).max() < 4


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"omega": 2.0}, "omega=2.0 guides by labels"),
    ({"path": paths.VarianceExploding()}, "its weights are of times in"),
  ],
)
def test_wrong_options_are_named(options, words):
  with pytest.raises(ValueError, match=words):
    anchored(EXACT.velocity, **options)


def test_one_number_a_sample_is_one_channel(x64):
  """Data [B] and [B, 1] are the same samples."""
  batch = batch_of(16)

  def evaluate(shape):
    given = {k: x[:, 0].reshape(shape) for k, x in batch.items()}
    return losses.flow_anchored_consistency_loss(
      lambda x, t, s, cond: jnp.sin(x) * paths.expand(t + s - 0.5, x),
      jax.random.key(1),
      given,
      path=LINEAR,
      sample_times=within(LINEAR),
    )

  (loss, metrics), (expected, known) = evaluate((16,)), evaluate((16, 1))
  np.testing.assert_array_equal(loss, expected)
  # A cosine of single numbers is a sign, which is no mean of the batch.
  assert metrics["raw_flow"] == known["raw_flow"]
