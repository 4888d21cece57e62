"""Moment matching at the exact solution, and its pairs of times."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from test_oracle import MEAN, batch_of

from jaxflow import flow_maps, losses, paths, times
from jaxflow.losses.moment_matching import earlier_times

LINEAR = paths.Linear(t_min=0.006, t_max=0.994, noise_std=0.5)
POINT = oracle.Gaussian(LINEAR, MEAN, 0.0)


def moment_matching(
  model_fn, *, size=16, flow_map=flow_maps.average_velocity, **options
):
  batch = batch_of(size)
  return losses.moment_matching_loss(
    model_fn,
    jax.random.key(3),
    batch | {"data": 0 * batch["data"] + jnp.asarray(MEAN)[None]},
    path=LINEAR,
    flow_map=flow_map,
    sample_times=times.TruncatedPair(
      law=times.Uniform(), t_min=LINEAR.t_min, t_max=LINEAR.t_max
    ),
    **options,
  )


def exact_for(make, x, t, s, cond):
  """Return the network whose map is the exact flow map of one point."""
  factor = [
    make(lambda *_, v=v: v * jnp.ones_like(x), path=LINEAR) for v in (0.0, 1.0)
  ]
  still, moved = (f(x, t, s, cond) for f in factor)
  gain = jnp.where(moved == still, 1, moved - still)
  return (POINT.flow_map(x, t, s) - still) / gain


@pytest.mark.parametrize(
  ("network", "make"),
  [
    (POINT.average_velocity, flow_maps.average_velocity),
    *(
      (functools.partial(exact_for, f), functools.partial(f, path=LINEAR))
      for f in (flow_maps.rotation, flow_maps.identity)
    ),
  ],
  ids=["euler", "rotation", "identity"],
)
def test_moments_of_one_point_match(network, make, x64):
  # The noise of a pair stays that of its trajectory, so both jumps agree.
  compute = jax.jit(
    functools.partial(moment_matching, flow_map=make), static_argnums=0
  )
  assert jnp.abs(compute(network)[0]).max() < 1e-9

  def off(x, t, s, cond):
    return network(x, t, s, cond) + 0.1 * t[:, None]

  assert compute(off)[1]["raw"] > 1e-9


def test_a_path_to_pure_noise_has_no_step_of_noise_level():
  t = jnp.array([0.5])
  with pytest.raises(ValueError, match=r"t_max=1.0 of Linear .* 0.994"):
    earlier_times(paths.Linear(), t, t)


def test_rows_of_a_group_report_one_loss():
  loss, _ = moment_matching(lambda x, t, s, cond: jnp.sin(x))
  groups = np.asarray(loss).reshape(4, 4)
  assert (groups == groups[:, :1]).all()
  assert len(set(groups[:, 0].tolist())) == 4


def test_group_must_divide_the_batch():
  with pytest.raises(ValueError, match="no multiple of group_size=5"):
    moment_matching(lambda x, t, s, cond: x, group_size=5)


def test_equal_times_give_no_loss_and_no_gradient():
  t = jnp.full(16, 0.5)

  @jax.grad
  def gradient(scale):
    loss, _ = losses.moment_matching_loss(
      lambda x, t, s, cond: scale * x,
      jax.random.key(0),
      batch_of(16),
      path=LINEAR,
      flow_map=flow_maps.average_velocity,
      sample_times=lambda key, n: (t, t),
    )
    return loss.sum()

  assert gradient(1.0) == 0


@pytest.mark.parametrize(
  "law", [times.Uniform(), times.LogitNormal(mean=-1.1, std=2.0)], ids=str
)
def test_truncated_pair(law):
  n = 20_000
  pair = times.TruncatedPair(law=law, t_min=0.006, t_max=0.994)
  t, s = pair(jax.random.key(0), n)
  assert (s <= t).all() and s.min() >= 0.006 and t.max() <= 0.994
  # Given t, the probability of the law below s is uniform below that of t.
  low, high = law.cdf(jnp.array([0.006, 0.994]))
  for value, top in ((t, high), (s, law.cdf(t))):
    share = (law.cdf(value) - low) / (top - low)
    counts, _ = np.histogram(share, bins=10, range=(0, 1))
    chi_square = ((counts - n / 10) ** 2 / (n / 10)).sum()
    # Mean 9, variance 18: five standard deviations above the mean.
    assert chi_square < 9 + 5 * math.sqrt(18)


def test_truncated_pair_needs_quantiles():
  with pytest.raises(ValueError, match="LogNormal cannot be truncated"):
    times.TruncatedPair(law=times.LogNormal(), t_min=0.0, t_max=1.0)  # pyright: ignore[reportArgumentType]
