"""The Lagrangian losses at the exact solution, and at their edges."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from test_oracle import MEAN, STD, batch_of, gradients, within, z_score

from jaxflow import losses, paths, times

LINEAR = paths.Linear()
EXACT = oracle.Gaussian(LINEAR, MEAN, STD)
PAIRS = times.SortedPair(law=within(LINEAR))


def lagrangian(model_fn, *, size=64, sample_times=PAIRS, **options):
  batch = batch_of(size) | {"cond": options.pop("cond", None)}
  return losses.lagrangian_loss(
    model_fn,
    jax.random.key(1),
    batch,
    path=options.pop("path", LINEAR),
    sample_times=sample_times,
    **options,
  )


@pytest.mark.parametrize("path", [LINEAR, paths.Trigonometric()], ids=str)
def test_terminal_term_vanishes_for_every_sample(path, x64):
  """No velocity of a sample enters it, so no average is needed."""
  exact = oracle.Gaussian(path, MEAN, STD)
  compute = jax.jit(
    functools.partial(
      lagrangian, path=path, sample_times=times.SortedPair(law=within(path))
    ),
    static_argnums=0,
  )
  loss, metrics = compute(exact.average_velocity)
  assert jnp.abs(loss[::4]).max() < 1e-20
  assert metrics["raw_flow"] > 0.1
  # The velocity is no average velocity: interval rows must notice.
  assert compute(exact.velocity)[1]["raw_interval"] > 1e-3


def scaled(x, t, s, cond):
  """The exact average velocity over its guidance input."""
  return EXACT.average_velocity(x, t, s) / cond["omega"][:, None]


def test_scaled_network(x64):
  """Without a null label its guidance input divides the network, no more."""
  options = {
    "block": (1, 1),
    "reduction": "mean",
    "omega": 2.0,
    "omega_input": True,
  }
  _, found = lagrangian(scaled, scale_output=True, **options)
  _, plain = lagrangian(EXACT.average_velocity, **options | {"omega": 1.0})
  assert found["raw_interval"] < 1e-20
  np.testing.assert_allclose(found["raw_flow"], plain["raw_flow"] / 4)
  _, off = lagrangian(scaled, **options)
  assert off["raw_interval"] > 1e-4


def test_flow_term_is_irreducible():
  n = 2**14
  law = within(LINEAR)
  loss, _ = jax.jit(
    functools.partial(
      lagrangian, size=n, block=(1, 1), reduction="mean", flow_times=law
    ),
    static_argnums=0,
  )(EXACT.average_velocity)
  # Its own times: those that the loss draws.
  flow_key = jax.random.split(jax.random.key(1), 4)[1]
  least = EXACT.irreducible_velocity(law(flow_key, n))
  assert abs(z_score(loss - least)) < 4


def test_gradient_vanishes():
  def loss(model_fn):
    return lagrangian(model_fn, size=2**14, block=(2, 1))

  assert np.abs(z_score(gradients(loss, EXACT.average_velocity))).max() < 4
  assert np.abs(z_score(gradients(loss, EXACT.velocity))).max() > 8


def wave(x, t, s, cond):
  return jnp.sin(x + (t - 2 * s)[:, None]) * t[:, None]


def test_terminal_velocity_is_both_terms_on_every_row(x64):
  """Rows that stand twice: once for each term, or once for both."""
  size = 16
  batch = jax.tree.map(lambda x: jnp.repeat(x, 2, axis=0), batch_of(size // 2))
  pair = tuple(jnp.repeat(x, 2) for x in PAIRS(jax.random.key(2), size // 2))
  compute = functools.partial(
    losses.lagrangian_loss,
    wave,
    jax.random.key(0),
    batch,
    path=LINEAR,
    sample_times=lambda key, n: pair,
    target_fn=lambda x, t, s, cond: jnp.cos(x),
  )
  apart, _ = compute(block=(2, 1))
  both, _ = compute(block=(1, 1))
  np.testing.assert_allclose(apart[::2] + apart[1::2], both[::2], rtol=1e-12)
  np.testing.assert_allclose(both[::2], both[1::2], rtol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_equal_times_carry_no_terminal_term(weighted, x64):
  t = jnp.linspace(0.1, 0.9, 8)

  def mean(scale):
    loss, _ = lagrangian(
      lambda x, t, s, cond: scale * wave(x, t, s, cond),
      size=8,
      sample_times=lambda key, n: (t, t),
      target_fn=lambda x, t, s, cond: jnp.cos(x),
      log_weight=(lambda t, s: scale * t) if weighted else None,
    )
    return loss[::4].sum()

  value, slope = jax.value_and_grad(mean)(1.0)
  assert value == slope == 0


def test_slope_is_differentiated(x64):
  """The gradient passes through d_s F as well as through F."""

  @jax.grad
  def gradient(a):
    loss, _ = lagrangian(
      lambda x, t, s, cond: x + (a * s)[:, None],
      size=4,
      sample_times=lambda key, n: (t, s),
      target_fn=lambda x, t, s, cond: 0 * x,
    )
    return loss[0]

  t, s = jnp.full(4, 0.75), jnp.full(4, 0.25)
  batch = batch_of(4)
  xt = 0.25 * batch["data"][0] + 0.75 * batch["noise"][0]
  # F = x + a s, so the slope is xt + a s - (t - s) a = xt - a / 4.
  expected = 2 * ((xt - 0.5 / 4) * -1 / 4).sum()
  np.testing.assert_allclose(gradient(0.5), expected)


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"omega": 2.0}, "omega=2.0 guides by labels"),
    ({"scale_output": True}, "scale_output=True scales the network by its"),
    ({"reduction": "median"}, "reduction='median': give one of mean, sum"),
    ({"block": (5, 1)}, "no multiple of the block"),
  ],
)
def test_wrong_options_are_named(options, words):
  with pytest.raises(ValueError, match=words):
    lagrangian(wave, **options)
