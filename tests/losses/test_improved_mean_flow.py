"""Improved MeanFlow: the exact solution, saved rows, drawn guidance, cost."""

import functools

import fast_compile
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from jaxflow import losses, models, paths, times
from jaxflow.paths import expand

LINEAR = paths.Linear()
PAIRS = times.SortedPair(law=times.LogitNormal(mean=-0.4, std=1.0))
# Away from both ends, where data that are one point make velocities infinite.
INSIDE = times.SortedPair(law=times.Uniform(t_min=0.05, t_max=0.95))
POINT = (0.3, -0.8)


def network(x, t, s, cond):
  """Two smooth heads that see everything."""
  ends = cond["t_start"] + 2 * cond["t_end"]
  wave = jnp.sin(3 * t + s) + 0.3 * cond["label"] * t + cond["omega"] * ends / 9
  hidden = x[:, ::-1] + wave[:, None]
  return jnp.tanh(hidden), jnp.sin(hidden) + x


def points(size, seed=0):
  """Draw data, noise and labels 0..5; 5 is the null label."""
  keys = jax.random.split(jax.random.key(seed), 3)
  return {
    "data": jax.random.normal(keys[0], (size, 2)),
    "noise": jax.random.normal(keys[1], (size, 2)),
    "cond": jax.random.randint(keys[2], (size,), 0, 6),
  }


@pytest.mark.parametrize("path", [LINEAR, paths.Trigonometric()], ids=str)
def test_residual_vanishes_without_labels(path, x64):
  # Data that are one point: the velocity of a sample is the exact velocity.
  exact = oracle.Gaussian(path, POINT, 0.0)
  noise = points(64)["noise"]
  batch = {"data": jnp.asarray(POINT)[None] + 0 * noise, "noise": noise}

  def residuals(average):
    @jax.jit
    def loss():
      return losses.improved_mean_flow_loss(
        lambda *args: (average(*args), exact.velocity(*args)),
        jax.random.key(0),
        batch,
        path=path,
        sample_times=INSIDE,
      )

    return loss()[1]

  metrics = residuals(exact.average_velocity)
  assert max(metrics["raw"], metrics["raw_v"]) <= 1e-9
  if path != LINEAR:  # There the trajectories of one point are not straight.
    assert residuals(exact.velocity)["raw_interval"] > 1e-3


def guided_heads(x, t, s, cond, *, share=0.4, wrong=False):
  """Exact heads for data that are POINT, were v_0 = share v_y.

  The guided velocity is r (x - POINT) / t, with r = share + omega (1 - share)
  inside the interval and 1 outside, so ln |x - POINT| falls by r ln t.
  """
  low, high = (jnp.clip(cond[k], s, t) for k in ("t_start", "t_end"))
  rate = share + cond["omega"] * (1 - share)
  inside = (cond["t_start"] <= t) & (t <= cond["t_end"])
  now = jnp.where(inside, rate, 1)
  now = jnp.where(cond["label"] == 5, share, now)
  away = x - jnp.asarray(POINT, x.dtype)[None]
  v = expand(now / t, x) * away
  fall = (s / t) * (low / high) ** (rate - 1)
  here = t == s
  u = expand((1 - fall) / jnp.where(here, 1, t - s), x) * away
  return jnp.where(expand(here | wrong, x), v, u), v


def test_residual_vanishes_with_guidance(x64):
  noise = points(256)["noise"]
  batch = {
    "data": jnp.asarray(POINT)[None] + 0 * noise,
    "noise": noise,
    "cond": jnp.arange(256) % 3,
  }

  @functools.partial(jax.jit, static_argnums=0)
  def metrics(wrong):
    return losses.improved_mean_flow_loss(
      functools.partial(guided_heads, wrong=wrong),
      jax.random.key(0),
      batch,
      path=LINEAR,
      sample_times=INSIDE,
      null_cond=5,
    )[1]

  exact = metrics(False)
  assert max(exact["raw"], exact["raw_v"]) <= 1e-9
  # The velocity is no average velocity: interval rows must notice.
  assert metrics(True)["raw_interval"] > 1e-3


def plain(batch, t, s, cond, block):
  """Eq. (13.2)-(13.6) with every term computed on every row, `[B]`."""
  interval = jnp.arange(len(t)) % block[0] < block[1]
  s = jnp.where(interval, s, t)
  start = jnp.where(interval, cond["t_start"], 0)
  end = jnp.where(interval, cond["t_end"], 1)
  label, omega = cond["label"], cond["omega"]
  v = batch["noise"] - batch["data"]
  xt = (1 - t)[:, None] * batch["data"] + t[:, None] * batch["noise"]
  zero, one = jnp.zeros_like(t), jnp.ones_like(t)

  def velocity(label, omega):
    told = {"label": label, "omega": omega, "t_start": zero, "t_end": one}
    return network(xt, t, t, told)[1]

  w = jnp.where((start <= t) & (t <= end), omega, 1)
  v_0, v_y = velocity(jnp.full_like(label, 5), one), velocity(label, w)
  null = (label == 5)[:, None]
  v_g = jnp.where(null, v, v + (1 - 1 / w)[:, None] * (v_y - v_0))
  told = {"label": label, "omega": omega, "t_start": start, "t_end": end}
  (u, head), (du, _) = jax.jvp(
    lambda xt, t, s: network(xt, t, s, told),
    (xt, t, s),
    (jnp.where(null, v_0, v_y), one, zero),
  )
  big_v = u + (t - s)[:, None] * du
  errors = [((e - v_g) ** 2).sum(1) for e in (big_v, head)]
  return sum(e / (e + 0.01) for e in errors)


@pytest.mark.parametrize("block", [(1, 1), (2, 1), (4, 1)], ids=str)
def test_equals_the_unsplit_formula(block, x64):
  batch = points(64)
  t, s = PAIRS(jax.random.key(1), 64)
  u = jax.random.uniform(jax.random.key(2), (3, 64))
  cond = {"label": batch["cond"], "omega": 1 + 7 * u[0]}
  cond |= {"t_start": u[1] / 2, "t_end": 0.5 + u[2] / 2}
  loss, _ = losses.improved_mean_flow_loss(
    network,
    jax.random.key(0),
    batch | {"cond": cond},
    path=LINEAR,
    sample_times=lambda key, n: (t, s),
    block=block,
    null_cond=5,
  )
  # Interval rows without label, which the reference cases do not have.
  assert (batch["cond"][:: block[0]] == 5).any()
  expected = plain(batch, t, s, cond, block)
  np.testing.assert_allclose(loss, expected, rtol=1e-10)


def watch(batch, **options):
  """Run a loss and return what the network was given, call by call."""
  calls = []

  def watched(x, t, s, cond):
    if not isinstance(x, jax.core.Tracer):
      calls.append((t, s, cond))
    else:
      calls.append(x.shape[0])
    # Times a network without labels must not need.
    told = cond if cond["label"] is not None else cond | {"label": 0}
    return network(x, t, s, told)

  losses.improved_mean_flow_loss(
    watched,
    jax.random.key(0),
    batch,
    path=LINEAR,
    sample_times=PAIRS,
    **options,
  )
  return calls


def test_passes_and_their_rows():
  # Null forward of all rows and conditional forward of the interval rows;
  # forward of all rows; derivative on the interval rows.
  both, *traced = watch(points(32), null_cond=5)
  assert (len(both[0]), *traced) == (48, 32, 16)
  tangent, *traced = watch(points(32))
  assert (len(tangent[0]), *traced) == (16, 32, 16)


def test_drawn_guidance():
  size = 4000
  # A difference traces nothing: its calls have numbers.
  both, *_, flow = watch(
    points(size), null_cond=5, label_dropout=0.25, derivative="central"
  )
  t, s, cond = flow
  assert (t == s).all()
  assert (cond["t_start"] == 0).all() and (cond["t_end"] == 1).all()
  omega = np.asarray(cond["omega"])
  # Uniform in the logarithm: the median of [1, 8] is sqrt 8.
  assert omega.min() >= 1 and omega.max() <= 8
  assert abs((omega < np.sqrt(8)).mean() - 0.5) < 4 * 0.5 / np.sqrt(size / 2)
  # A sixth has no label, a quarter of the others lose it: 3/8 in all.
  assert abs((cond["label"] == 5).mean() - 3 / 8) < 4 * 0.5 / np.sqrt(size / 2)
  # In a block of three: an interval row with its label, then two null rows.
  told = jax.tree.map(lambda x: np.asarray(x).reshape(-1, 3), both[2])
  assert (told["label"][:, 1:] == 5).all()
  assert (told["omega"][:, 1:] == 1).all()
  assert (told["t_start"] == 0).all() and (told["t_end"] == 1).all()
  assert (told["omega"][:, 0] == 1).mean() < 0.6


def test_a_path_outside_the_unit_interval():
  with pytest.raises(ValueError, match=r"path=.* parts of \[0, 1\]"):
    losses.improved_mean_flow_loss(
      network,
      jax.random.key(0),
      points(4),
      path=paths.VarianceExploding(),
      sample_times=PAIRS,
    )


def flops(loss, **options):
  """XLA's count of value and gradient of a loss on a small DiT."""
  # Of a loop it would count one round.
  network = models.dit(
    scan_layers=False,
    data_shape=(32, 32, 4),
    patch_size=4,
    depth=3,
    width=128,
    num_heads=4,
    num_classes=10,
    **options,
  )
  params = jax.eval_shape(network.init, jax.random.key(0))
  batch = {
    "data": jax.ShapeDtypeStruct((8, 32, 32, 4), jnp.float32),
    "cond": jax.ShapeDtypeStruct((8,), jnp.int32),
  }

  def mean_loss(params, batch):
    return loss(
      functools.partial(network.apply, params),
      jax.random.key(0),
      batch,
      path=LINEAR,
      null_cond=10,
      label_dropout=0.1,
    )[0].mean()

  lowered = jax.jit(jax.value_and_grad(mean_loss)).lower(params, batch)
  compiled = lowered.compile(compiler_options=fast_compile.OPTIONS)
  return compiled.cost_analysis()["flops"]


def test_cost():
  baseline = flops(
    functools.partial(losses.flow_matching_loss, sample_times=times.Uniform())
  )
  ours = flops(
    functools.partial(losses.improved_mean_flow_loss, sample_times=PAIRS),
    heads=2,
    head_depth=2,
    guidance_inputs=True,
  )
  ratio = ours / baseline
  # Two heads of two blocks after one block are 5/3 of a network, forward and
  # backward 5; the derivative of half the rows 1/2; second heads of all rows
  # and of half of them 3/2.
  assert ratio == pytest.approx(7 / 3, abs=0.05)
  assert ratio <= 2.45
