"""The static split of rows, label dropping and guidance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxflow import guidance, losses, paths, rows, times

BLOCKS = [(1, 1), (2, 1), (4, 1), (8, 1), (4, 3), (2, 2)]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_merge_inverts_split(block):
  tree = {
    "image": jnp.arange(24 * 6.0).reshape(24, 3, 2),
    "more": (jnp.arange(24), None),
  }
  interval, flow = rows.split(tree, block)
  merged = jax.tree.map(lambda a, b: rows.merge(a, b, block), interval, flow)
  jax.tree.map(np.testing.assert_array_equal, merged, tree)
  m, k = block
  assert interval["more"][0].shape == (24 * k // m,)
  assert flow["image"].shape == (24 * (m - k) // m, 3, 2)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_mask_agrees_with_split(block):
  m, k = block
  mask = rows.is_interval(block, 24)
  np.testing.assert_array_equal(mask, [i % m < k for i in range(24)])
  interval, flow = rows.split(np.arange(24), block)
  np.testing.assert_array_equal(interval, np.arange(24)[mask])
  np.testing.assert_array_equal(flow, np.arange(24)[~mask])


@pytest.mark.parametrize(
  ("block", "size", "message"),
  [
    ((4, 1), 10, r"batch of 10 rows .* block \(4, 1\): use 12"),
    ((8, 1), 4, r"batch of 4 rows .* block \(8, 1\): use 8"),
    ((2, 3), 6, r"block \(2, 3\) is not \(m, k\) with 1 <= k <= m"),
    ((2, 0), 6, r"block \(2, 0\) is not \(m, k\) with 1 <= k <= m"),
  ],
)
def test_wrong_block(block, size, message):
  with pytest.raises(ValueError, match=message):
    rows.check_block(block, size)


ROWS = 20_000


def share(mask):
  """Share of a mask, and the bound of four standard errors at 1/2."""
  return float(np.mean(mask)), 4 * 0.5 / np.sqrt(np.size(mask))


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropped_share(rate):
  label = jnp.arange(ROWS) % 7
  dropped = guidance.drop_labels(
    jax.random.key(0), label, rate=rate, null_cond=7
  )
  mask = np.asarray(dropped == 7)
  part, error = share(mask)
  assert abs(part - rate) < error
  np.testing.assert_array_equal(dropped[~mask], label[~mask])


@pytest.mark.parametrize("block", [(4, 1), (2, 1)], ids=str)
def test_dropped_among(block):
  # The rate is the share of all rows, though only some may lose their label.
  among = ~rows.is_interval(block, ROWS)
  cond = {"label": jnp.zeros(ROWS, jnp.int32), "omega": jnp.ones(ROWS)}
  dropped = guidance.drop_labels(
    jax.random.key(1), cond, rate=0.3, null_cond=7, among=among
  )
  mask = np.asarray(dropped["label"] == 7)
  assert not mask[~among].any()
  part, error = share(mask)
  assert abs(part - 0.3) < error
  np.testing.assert_array_equal(dropped["omega"], cond["omega"])


def test_nothing_is_dropped_without_rate_or_labels():
  key, label = jax.random.key(0), jnp.arange(3)
  assert guidance.drop_labels(key, None, rate=0.5, null_cond=3) is None
  kept = guidance.drop_labels(key, label, rate=0.0, null_cond=3)
  assert kept is label


def test_everything_is_dropped_at_rate_one():
  dropped = guidance.drop_labels(
    jax.random.key(0), jnp.arange(9), rate=1.0, null_cond=9
  )
  assert (dropped == 9).all()


def test_too_high_a_rate():
  with pytest.raises(ValueError, match=r"label_dropout 0\.6 .* 0\.5"):
    guidance.drop_labels(
      jax.random.key(0),
      jnp.arange(4),
      rate=0.6,
      null_cond=4,
      among=~rows.is_interval((2, 1), 4),
    )


WEIGHTS = jax.random.normal(jax.random.key(3), (6, 4))


def network(xt, t, s, cond):
  """Nonlinear in every input; labels 0 to 5, of which 5 is null."""
  lift = jnp.sin(t)[:, None] + jnp.cos(2 * s)[:, None] * xt
  return jnp.tanh(WEIGHTS[cond].astype(xt.dtype) * xt + lift)


def points(size, seed=0):
  """Points, times t >= s and labels."""
  keys = jax.random.split(jax.random.key(seed), 4)
  a, b = jax.random.uniform(keys[1], (2, size))
  label = jax.random.randint(keys[2], (size,), 0, 6)
  x = jax.random.normal(keys[0], (size, 4))
  return x, jnp.maximum(a, b), jnp.minimum(a, b), label


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 4.0])
def test_guidance_equals_two_calls(scale, x64):
  x, t, s, label = points(12)
  guided = guidance.classifier_free(network, scale=scale, null_cond=5)
  with_label = network(x, t, s, label)
  without = network(x, t, s, jnp.full(12, 5))
  expected = without + scale * (with_label - without)
  np.testing.assert_allclose(guided(x, t, s, label), expected, rtol=1e-12)


GRIDS = {
  "uniform": (times.uniform_grid, 0.0, 1.0),
  "shifted": (times.shifted_grid, 0.0, 1.0),
  "karras": (times.karras_grid, 0.002, 80.0),
  "log": (times.log_grid, 0.002, 80.0),
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("num", [4, 6, 11, 19, 33])
def test_times_of_a_grid_are_ends_of_an_interval(name, num, x64):
  make, t_min, t_max = GRIDS[name]
  exact = np.asarray(make(num, t_min=t_min, t_max=t_max), np.float64)
  with jax.enable_x64(False):
    rounded = make(num, t_min=t_min, t_max=t_max)
    # Users give ends in decimal digits.
    ends = [float(f"{t:.7g}") for t in exact]
    for i, end in enumerate(ends):
      above = guidance.inside_interval(rounded, end, 2 * t_max)
      below = guidance.inside_interval(rounded, -1.0, end)
      assert above.tolist() == [k <= i for k in range(num)]
      assert below.tolist() == [k >= i for k in range(num)]


def test_guidance_interval_includes_both_ends(x64):
  low, high = 0.25, 0.75
  t = jnp.array([0.0, 0.2499, low, 0.5, high, 0.7501, 1.0])
  inside = np.array([False, False, True, True, True, False, False])
  x, _, _, label = points(len(t))
  guided = guidance.classifier_free(
    network, scale=3.0, null_cond=5, interval=(low, high)
  )
  with_label = network(x, t, t, label)
  without = network(x, t, t, jnp.full(len(t), 5))
  expected = np.where(inside[:, None], 3 * with_label - 2 * without, with_label)
  np.testing.assert_allclose(guided(x, t, t, label), expected, rtol=1e-12)


def plain_mean_flow(data, noise, times, label, block, omega, kappa):
  """Compute the published formula, every term on every row, `[B]`."""
  t, s = times
  interval = jnp.array([i % block[0] < block[1] for i in range(len(t))])
  s = jnp.where(interval, s, t)
  xt = (1 - t)[:, None] * data + t[:, None] * noise
  v = noise - data
  if (omega, kappa) != (1.0, 0.0):
    with_label = network(xt, t, t, label)
    without = network(xt, t, t, jnp.full_like(label, 5))
    guided = omega * v + kappa * with_label + (1 - omega - kappa) * without
    v = jnp.where((label == 5)[:, None], v, guided)
  u, du = jax.jvp(
    lambda xt, t, s: network(xt, t, s, label),
    (xt, t, s),
    (v, jnp.ones_like(t), jnp.zeros_like(s)),
  )
  error = ((u - (v - (t - s)[:, None] * du)) ** 2).sum(1)
  return error / (error + 0.01)


@pytest.mark.parametrize("block", [(4, 1), (2, 1)], ids=str)
@pytest.mark.parametrize(
  ("omega", "kappa"), [(1.0, 0.0), (2.0, 0.0), (1.0, 0.5)]
)
def test_mean_flow_equals_the_unsplit_formula(block, omega, kappa, x64):
  data, t, s, label = points(32, seed=1)
  noise = points(32, seed=2)[0]
  loss, _ = losses.mean_flow_loss(
    network,
    jax.random.key(0),
    {"data": data, "noise": noise, "cond": label},
    path=paths.Linear(),
    sample_times=lambda key, n: (t, s),
    block=block,
    omega=omega,
    kappa=kappa,
    null_cond=5,
  )
  expected = plain_mean_flow(data, noise, (t, s), label, block, omega, kappa)
  assert (label == 5).any()
  np.testing.assert_allclose(loss, expected, rtol=1e-10)


def test_guidance_beside_a_teacher():
  with pytest.raises(ValueError, match=r"omega=2\.0, .* guide the teacher"):
    losses.mean_flow_loss(
      network,
      jax.random.key(0),
      {"data": jnp.ones((4, 4)), "cond": jnp.zeros(4, jnp.int32)},
      path=paths.Linear(),
      sample_times=lambda key, n: (jnp.ones(n), jnp.zeros(n)),
      omega=2.0,
      null_cond=5,
      teacher=network,
    )


@pytest.mark.parametrize("given", [{"null_cond": 5}, {"cond": True}])
def test_guidance_without_labels(given):
  given = dict(given)
  batch = {"data": jnp.ones((4, 4))}
  if given.pop("cond", False):
    batch["cond"] = jnp.zeros(4, jnp.int32)
  with pytest.raises(
    ValueError, match=r"omega=2\.0, kappa=0\.0 guide by labels"
  ):
    losses.mean_flow_loss(
      network,
      jax.random.key(0),
      batch,
      path=paths.Linear(),
      sample_times=lambda key, n: (jnp.ones(n), jnp.zeros(n)),
      omega=2.0,
      **given,
    )
