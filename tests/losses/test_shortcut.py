"""Halved steps: levels, pairs, the exact solution, guidance of few rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from jaxflow import losses, paths
from jaxflow.times import dyadic

DATA_PATHS = [paths.Linear(), paths.Trigonometric()]


def network(x, t, s, cond):
  """Return a smooth network that sees everything."""
  wave = jnp.sin(3 * t + s) + 0.3 * cond * t
  return jnp.tanh(x[:, ::-1] + wave[:, None])


def points(size, seed=0):
  """Draw data, noise and labels 0..4."""
  keys = jax.random.split(jax.random.key(seed), 3)
  return {
    "data": jax.random.normal(keys[0], (size, 2)),
    "noise": jax.random.normal(keys[1], (size, 2)),
    "cond": jax.random.randint(keys[2], (size,), 0, 5),
  }


def test_levels_cycle_over_the_interval_rows():
  # 7 levels of 128 steps; 128 rows hold 16 interval rows.
  level = dyadic.levels(128, (8, 1), 128)
  expected = [6, 5, 4, 3, 2, 1, 0, 6, 5, 4, 3, 2, 1, 0, 6, 5]
  assert level[::8].tolist() == expected
  assert (np.delete(level, np.arange(0, 128, 8)) == 7).all()


@pytest.mark.parametrize(
  ("num_steps", "block", "size", "message"),
  [
    (128, (8, 1), 48, "6 rows with s < t .* 7 levels .* use 56 rows"),
    (128, (8, 2), 24, "6 rows with s < t .* use 32 rows .* num_steps=64"),
    (100, (8, 1), 64, "num_steps=100: give a power of two"),
    (1, (8, 1), 64, "num_steps=1: give a power of two"),
    (4, (8, 1), 20, r"block \(8, 1\): use 24"),
  ],
)
def test_wrong_levels(num_steps, block, size, message):
  with pytest.raises(ValueError, match=message):
    dyadic.levels(num_steps, block, size)


def test_too_few_rows_raise_before_anything_is_computed():
  def fail(*_):
    raise AssertionError("called")

  with pytest.raises(ValueError, match="use 56 rows"):
    losses.shortcut_loss(
      fail,
      jax.random.key(0),
      points(16),
      path=paths.Linear(),
      sample_times=fail,
    )


def test_pairs_lie_on_the_grids_of_their_levels():
  size, num_steps, block = 4096, 8, (4, 1)
  pair = dyadic.DyadicPair(num_steps=num_steps, block=block)
  t, s = map(np.asarray, pair(jax.random.key(0), size))
  level = dyadic.levels(num_steps, block, size)
  for a in range(3):
    rows = level == a
    assert (t[rows] - s[rows] == 2.0**-a).all()
    # Every start of the level's own grid occurs, and no other.
    grid = np.arange(1, 2**a + 1) / 2**a
    np.testing.assert_array_equal(np.unique(t[rows]), grid)
  flow = level == 3
  assert (t[flow] == s[flow]).all()
  values, counts = np.unique(t[flow], return_counts=True)
  np.testing.assert_array_equal(values, np.arange(1, 9) / 8)
  # 3072 rows on 8 times: five standard deviations of a binomial count.
  assert np.abs(counts - 384).max() < 5 * np.sqrt(3072 / 8 * 7 / 8)


@pytest.mark.parametrize("path", DATA_PATHS, ids=str)
def test_bootstrap_residual_vanishes(path, x64):
  # Two exact steps are one exact step. The smallest step is not: it goes along
  # the velocity, so the finest level is left out here.
  exact = oracle.Gaussian(path, (0.3, -0.8), 0.6)
  data = points(64)
  data["data"] = 0.3 + 0.6 * data["data"]

  def residual(model_fn, num_steps):
    @jax.jit
    def loss():
      t = jnp.linspace(0.5, 1.0, 64)
      return losses.shortcut_loss(
        model_fn,
        jax.random.key(0),
        data,
        path=path,
        sample_times=lambda key, n: (t, t - 0.5 * jnp.ones(64)),
        num_steps=num_steps,
        block=(1, 1),
      )

    return loss()[1]["raw_interval"]

  assert residual(exact.average_velocity, 8) <= 1e-9
  assert residual(exact.velocity, 8) > 1e-3
  # Half steps of 1/4 that count as smallest go along the velocity.
  assert residual(exact.average_velocity, 4) > 1e-4


def plain(data, noise, times, label, block, omega, num_steps):
  """Compute (11.3)-(11.6) with every term on every row, `[B]`."""
  t, s = times
  interval = jnp.arange(len(t)) % block[0] < block[1]
  s = jnp.where(interval, s, t)
  xt = (1 - t)[:, None] * data + t[:, None] * noise

  def q(x, a, b):
    smallest = a - b <= 1 / num_steps
    b = jnp.where(smallest, a, b)
    labelled = network(x, a, b, label)
    null = network(x, a, b, jnp.full_like(label, 5))
    guided = null + omega * (labelled - null)
    return jnp.where(smallest[:, None], guided, labelled)

  m = (t + s) / 2
  v1 = q(xt, t, m)
  v2 = q(jnp.clip(xt - (t - m)[:, None] * v1, -1, 1), m, s)
  target = jnp.clip((v1 + v2) / 2, -1, 1)
  target = jnp.where(interval[:, None], target, noise - data)
  return ((network(xt, t, s, label) - target) ** 2).mean(1)


# 3 levels: a whole number of cycles, and an incomplete last one.
@pytest.mark.parametrize("size", [24, 32])
def test_guided_rows_equal_the_unsplit_formula(size, x64):
  num_steps, block, omega = 8, (4, 1), 1.5
  batch = points(size)
  pair = dyadic.DyadicPair(num_steps=num_steps, block=block)
  t, s = pair.transform(jax.random.uniform(jax.random.key(1), (size,)))
  loss, _ = losses.shortcut_loss(
    network,
    jax.random.key(0),
    batch,
    path=paths.Linear(),
    sample_times=lambda key, n: (t, s),
    num_steps=num_steps,
    block=block,
    clip=1.0,
    omega=omega,
    null_cond=5,
  )
  expected = plain(
    batch["data"], batch["noise"], (t, s), batch["cond"], block, omega, 8
  )
  np.testing.assert_allclose(loss, expected, rtol=1e-12)


def test_only_the_finest_rows_are_doubled():
  rows = []

  def counted(x, t, s, cond):
    rows.append(len(x))
    return network(x, t, s, cond)

  losses.shortcut_loss(
    network,
    jax.random.key(0),
    points(56),
    path=paths.Linear(),
    sample_times=dyadic.DyadicPair(),
    target_fn=counted,
    omega=1.5,
    null_cond=5,
  )
  # 7 interval rows and one twin, for each half step.
  assert rows == [8, 8]


def test_labels_drop_on_flow_rows_only():
  seen = {}

  def watched(x, t, s, cond):
    seen.update(t=t, s=s, cond=cond)
    return network(x, t, s, cond)

  losses.shortcut_loss(
    watched,
    jax.random.key(0),
    points(64),
    path=paths.Linear(),
    sample_times=dyadic.DyadicPair(num_steps=8, block=(4, 1)),
    num_steps=8,
    block=(4, 1),
    target_fn=network,
    label_dropout=0.5,
    null_cond=5,
  )
  dropped = np.asarray(seen["cond"] == 5).reshape(16, 4)
  assert not dropped[:, 0].any()
  assert 0.4 < dropped[:, 1:].mean() < 0.95
  assert (np.asarray(seen["s"] < seen["t"]).reshape(16, 4)[:, 0]).all()


def test_the_target_has_no_gradient():
  batch = points(32)

  def mean_loss(scale, target_scale):
    def scaled(scale):
      return lambda x, t, s, cond: scale * network(x, t, s, cond)

    return losses.shortcut_loss(
      scaled(scale),
      jax.random.key(0),
      batch,
      path=paths.Linear(),
      sample_times=dyadic.DyadicPair(num_steps=8, block=(2, 1)),
      num_steps=8,
      block=(2, 1),
      target_fn=None if target_scale is None else scaled(target_scale),
    )[0].mean()

  online = jax.grad(mean_loss)(1.3, None)
  frozen = jax.grad(functools.partial(mean_loss, target_scale=1.3))(1.3)
  np.testing.assert_allclose(online, frozen, rtol=1e-6)
  assert jax.grad(mean_loss, 1)(1.3, 1.3) == 0


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"omega": 2.0}, "omega=2.0 guides by labels"),
    ({"path": paths.VarianceExploding()}, r"path=.* divide \[0, 1\]"),
  ],
)
def test_wrong_options(changes, message):
  options = {"path": paths.Linear(), "sample_times": dyadic.DyadicPair()}
  with pytest.raises(ValueError, match=message):
    losses.shortcut_loss(
      network, jax.random.key(0), points(64), **options | changes
    )
