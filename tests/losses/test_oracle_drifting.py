"""Drifting where the field is known: symmetry, and what moves it along."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxflow import losses, paths

GROUP, CLASSES, DIM = 8, 3, 4
KEY = jax.random.key(1)


def normal(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def drifting(x, data, model_fn=None, **options):
  """Return loss and metrics of samples x, those of a network by default."""

  def net(noise, t, s, cond):
    return noise if model_fn is None else model_fn(noise)

  given = {"group": GROUP, "temperatures": (0.5,), "negatives": 0} | options
  negative = given.pop("negative", None)
  batch = {"data": data, "noise": x}
  if negative is not None:
    batch["negative"] = negative
  if (omega := given.pop("omega", None)) is not None:
    label = jnp.zeros(len(data), jnp.int32)
    batch["cond"] = {"label": label, "omega": jnp.full(len(data), omega)}
  return losses.drifting_loss(net, KEY, batch, path=paths.Linear(), **given)


@jax.jit
def move(x, data, **given):
  """Return the drift of every sample, in units of the data."""

  def total(shift):
    loss, metrics = drifting(x, data, lambda noise: noise + shift, **given)
    # Of a group's mean, so that a row's gradient is -2 drift / (G D unit).
    return loss[::GROUP].sum(), metrics["scale"]

  gradient, scale = jax.grad(total, has_aux=True)(jnp.zeros_like(x))
  unit = scale / jnp.sqrt(DIM)
  return -gradient * GROUP * DIM * unit**2 / 2


X = normal(CLASSES * GROUP, DIM)
DATA = normal(CLASSES * GROUP, DIM, seed=1) + 0.5


def samples():
  return X.astype(float), DATA.astype(float)


def test_centre_of_symmetric_positives_stays(x64):
  centre = normal(2, DIM, seed=2)
  around = normal(2, GROUP // 2, DIM, seed=3)
  mirrored = jnp.concatenate([around, -around], axis=1) + centre[:, None]
  data = mirrored.reshape(-1, DIM)
  _, metrics = drifting(centre, data, group_samples=1)
  assert metrics["force_0.5"] < 1e-24
  _, metrics = drifting(centre + 0.1, data, group_samples=1)
  assert metrics["force_0.5"] > 1e-8


def test_drift_is_that_of_the_geometry(x64):
  x, data = samples()
  drift = move(x, data)
  assert jnp.abs(drift).max() > 0.1
  close = {"rtol": 0, "atol": 1e-11}
  moved = move(x + 3, data + 3)
  np.testing.assert_allclose(moved, drift, **close)
  rotation = jnp.linalg.qr(normal(DIM, DIM, seed=4))[0]
  turned = move(x @ rotation, data @ rotation)
  np.testing.assert_allclose(turned, drift @ rotation, **close)
  # Distances have a floor of 1e-4, that of a sample to itself.
  np.testing.assert_allclose(move(7 * x, 7 * data), 7 * drift, rtol=1e-4)


def test_order_within_a_group_is_of_no_matter(x64):
  x, data = samples()
  order = np.random.default_rng(5).permuted(
    np.arange(len(data)).reshape(CLASSES, GROUP), axis=1
  )
  np.testing.assert_allclose(
    move(x, data[order.ravel()]), move(x, data), rtol=0, atol=1e-12
  )
  np.testing.assert_allclose(
    move(x[order.ravel()], data), move(x, data)[order.ravel()], atol=1e-12
  )


def test_samples_go_to_their_own_class(x64):
  """The mean drift points from samples to data, in each group."""
  x, _ = samples()
  ways = jnp.asarray([[2.0, 0, 0, 0], [0, -2.0, 0, 0], [0, 0, 2.0, 2.0]])
  data = x + jnp.repeat(ways, GROUP, axis=0)
  drift = move(x, data).reshape(CLASSES, GROUP, DIM).mean(1)
  cosine = (drift * ways).sum(1) / (
    jnp.linalg.norm(drift, axis=1) * jnp.linalg.norm(ways, axis=1)
  )
  assert cosine.min() > 0.9


def test_field_of_one_law_vanishes_with_the_number_of_samples():
  """Finite sets are only close: force per sum of weights falls with G."""

  def ratio(size):
    same, other, x = (normal(size, 2, seed=i) for i in range(6, 9))
    rms = [
      drifting(x, data, group=size, temperatures=(0.2,))[1]["force_0.2"] ** 0.5
      for data in (same, other + jnp.asarray([[0.5, 0.0]]))
    ]
    return rms[0] / rms[1]

  few, many = ratio(64), ratio(512)
  assert many < 0.4 < few


def test_value_of_one_temperature_is_1(x64):
  """Mean F^2 = 1 for one temperature, whatever the samples."""
  x, data = samples()
  loss, _ = drifting(x, data)
  np.testing.assert_allclose(loss.mean(), 1, rtol=1e-12)


def test_negatives_repel_as_much_as_omega_says(x64):
  x, data = samples()
  away = jnp.asarray([[3.0, 0, 0, 0]])
  negative = jnp.repeat(x[::GROUP], 2, axis=0) + away
  given = {"negative": negative, "negatives": 2}
  one, three = (
    drifting_moves(x, data, omega=omega, **given) for omega in (1.0, 3.0)
  )
  assert (three - one)[:, 0].mean() < -0.05


def drifting_moves(x, data, **given):
  negatives = given.pop("negatives")

  def total(shift):
    loss, metrics = drifting(
      x, data, lambda noise: noise + shift, negatives=negatives, **given
    )
    return loss[::GROUP].sum(), metrics["scale"]

  gradient, scale = jax.grad(total, has_aux=True)(jnp.zeros_like(x))
  return -gradient * GROUP * scale**2 / 2


def test_negatives_are_of_the_batch_and_need_labels(x64):
  x, data = samples()
  cond = jnp.repeat(jnp.arange(CLASSES), GROUP)
  given = {"path": paths.Linear(), "group": GROUP, "temperatures": (0.5,)}
  batch = {"data": data, "noise": x}

  def loss(cond, **options):
    own = batch if cond is None else batch | {"cond": cond}
    return losses.drifting_loss(
      lambda xt, t, s, cond: xt, KEY, own, **given, **options
    )[0]

  plain = loss(None, negatives=0)
  np.testing.assert_array_equal(loss(None, negatives=5), plain)
  np.testing.assert_array_equal(loss(cond, negatives=0), plain)
  # Weights of 0, and yet a share of the softmax over targets.
  unguided = loss(cond, negatives=5, unguided=1.0)
  assert jnp.abs(unguided - plain).max() > 1e-4
  guided = loss(cond, negatives=5, unguided=0.0)
  assert jnp.abs(guided - unguided).max() > 1e-4
  with pytest.raises(ValueError, match="negatives=25: a batch of 24 rows"):
    loss(cond, negatives=25)


def test_a_group_divides_the_batch():
  with pytest.raises(ValueError, match="no multiple of group=5: use 25"):
    drifting(X, DATA, group=5)


def test_distances_need_no_memory_of_their_dimension():
  """No array of [G, targets, D] is held at once."""
  size, dim = 64, 4096
  x = jnp.zeros((size, dim))
  compiled = (
    jax.jit(
      lambda x, data: jax.grad(
        lambda x: drifting(x, data, group=size, group_samples=size)[0].mean()
      )(x)
    )
    .lower(x, x)
    .compile()
  )
  floats = compiled.memory_analysis().temp_size_in_bytes / 4
  assert floats < size * 2 * size * dim / 8


def test_groups_share_their_condition_and_scale():
  """Labels and omega of the first row of a group go with all its samples."""
  seen = {}

  def net(xt, t, s, cond):
    seen.update(cond, t=t, s=s)
    return xt

  label = jnp.repeat(jnp.asarray([4, 2, 5]), GROUP)
  losses.drifting_loss(
    net,
    KEY,
    {"data": DATA, "cond": label},
    path=paths.Linear(),
    group=GROUP,
    group_samples=2,
    unguided=0.0,
  )
  assert seen["label"].tolist() == [4, 4, 2, 2, 5, 5]
  omega = np.asarray(seen["omega"]).reshape(3, 2)
  np.testing.assert_array_equal(omega[:, 0], omega[:, 1])
  assert 1 < omega.min() and omega.max() < 4 and np.ptp(omega) > 0
  assert seen["t"].tolist() == [1] * 6 and seen["s"].tolist() == [0] * 6
