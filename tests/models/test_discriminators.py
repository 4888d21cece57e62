"""Discriminators: arithmetic, independence of rows, frozen parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import plain_networks as plain
import pytest

from jaxflow.config import registry
from jaxflow.errors import UsageError
from jaxflow.models import (
  conv_discriminator,
  conv_features,
  projected_discriminator,
)
from jaxflow.parallel import sharding

SHAPE = (7, 9, 2)
BATCH = 8
LABELS = jnp.array([0, 3, 2, 1, 0, 1, 2, 3])

conv = functools.partial(
  conv_discriminator, data_shape=SHAPE, width=4, depth=2, num_classes=3
)
points = functools.partial(conv, data_shape=(5,), width=8)


def projected(dtype="float32", **options):
  features = conv_features(data_shape=SHAPE, width=4, depth=2, dtype=dtype)
  return projected_discriminator(
    **{"width": 6, "num_classes": 3} | options,
    **{"data_shape": SHAPE, "features": features, "dtype": dtype},
  )


CASES = {
  "conv": (conv, SHAPE),
  "conv_without_norm": (functools.partial(conv, norm="none"), SHAPE),
  "points": (points, (5,)),
  "projected": (projected, SHAPE),
}
cases = pytest.mark.parametrize("case", CASES)


def make(case, **options):
  """Discriminator, parameters, frozen parameters, samples."""
  maker, shape = CASES[case]
  discriminator = maker(**options)
  frozen = None
  if discriminator.features is not None:
    frozen = plain.randomised(discriminator.features.init, seed=8)
  params = plain.randomised(discriminator.init)
  x = jax.random.normal(jax.random.key(1), (BATCH, *shape))
  return discriminator, params, frozen, x


def trunk(p, x, groups):
  """Return the levels of a trunk; `groups[i]` is 0 for no group norm."""
  if x.ndim == 4:
    x = plain.leaky(plain.conv(p["input"], x))
  levels = []
  for i, count in enumerate(groups):
    q = p[f"layer_{i}"]
    x = plain.conv(q, x, stride=2) if x.ndim == 4 else plain.linear(q, x)
    x = plain.group_norm(p[f"norm_{i}"], x, count) if count else x
    x = plain.leaky(x)
    levels.append(x)
  return levels


def logit(p, x, label):
  phi = x.reshape(len(x), -1, x.shape[-1]).mean(1)
  table = p["label"]["table"][np.asarray(label)]
  return plain.linear(p["output"], phi)[:, 0] + (table * phi).sum(1)


def reference(case, params, frozen, x, label):
  p, x = plain.wide(params), np.asarray(x, np.float64)
  if case == "projected":
    levels = trunk(plain.wide(frozen), x, (2, 4))
    logits = []
    for i, level in enumerate(levels):
      hidden = plain.linear(p[f"hidden_{i}"], plain.normalise(level, -1))
      logits.append(logit(p[f"logit_{i}"], plain.leaky(hidden), label))
    return np.stack(logits, axis=1)
  # Groups of four channels: 8 and 16 of images, 8 and 8 of points.
  groups = {"conv": (2, 4), "conv_without_norm": (0, 0), "points": (2, 2)}[case]
  return logit(p["logit"], trunk(p["trunk"], x, groups)[-1], label)


@cases
def test_logits_follow_the_formula(case):
  discriminator, params, frozen, x = make(case)
  expected = reference(case, params, frozen, x, LABELS)
  logits = jax.jit(discriminator.apply)(params, x, LABELS, frozen)
  assert logits.shape == ((BATCH, 2) if case == "projected" else (BATCH,))
  assert logits.dtype == jnp.float32
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


@cases
def test_rows_are_independent(case):
  discriminator, params, frozen, x = make(case)
  slope = jax.jit(
    jax.jacrev(lambda x: discriminator.apply(params, x, LABELS, frozen))
  )(x)
  size = np.abs(slope).reshape(BATCH, -1, BATCH, x[0].size).sum((1, 3))
  assert (size - np.diag(np.diag(size)) == 0).all()
  assert (np.diag(size) > 0).all()


@cases
def test_bfloat16(case):
  discriminator, params, frozen, x = make(case)
  exact = discriminator.apply(params, x, LABELS, frozen)
  half = make(case, dtype="bfloat16")[0]

  @jax.jit
  def loss(params, x):
    logits = half.apply(params, x, LABELS, frozen)
    return (logits**2).sum(), logits

  (gradients, _), logits = jax.grad(loss, (0, 1), has_aux=True)(params, x)
  assert logits.dtype == jnp.float32
  # Eight bits through some ten operations.
  scale = np.abs(exact).max()
  np.testing.assert_allclose(logits, exact, atol=0.05 * scale)
  assert not np.array_equal(logits, exact)
  for leaf in jax.tree.leaves(gradients):
    assert leaf.dtype == jnp.float32
    assert np.isfinite(leaf).all()
  assert {p.dtype for p in jax.tree.leaves(params)} == {np.dtype("float32")}


@cases
def test_one_and_eight_devices_agree(case):
  discriminator, params, frozen, x = make(case)
  apply = jax.jit(discriminator.apply)
  alone = apply(params, x, LABELS, frozen)
  mesh = sharding.make_mesh()
  assert mesh.size == 8
  spec = jax.sharding.PartitionSpec(mesh.axis_names)
  rows = jax.sharding.NamedSharding(mesh, spec)
  x, labels = jax.device_put((x, LABELS), rows)
  together = apply(params, x, labels, frozen)
  assert len(together.sharding.device_set) == 8
  np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


@cases
def test_labels(case):
  discriminator, params, frozen, x = make(case)
  apply = jax.jit(discriminator.apply)
  judge = functools.partial(apply, params, x, frozen=frozen)
  null = judge(jnp.full(BATCH, 3))
  np.testing.assert_array_equal(judge(None), null)
  np.testing.assert_array_equal(judge({"label": jnp.full(BATCH, 3)}), null)
  assert not np.allclose(judge(jnp.zeros(BATCH, int)), null)
  assert np.isnan(judge(jnp.full(BATCH, 4))).all()
  blind, params, frozen, x = make(case, num_classes=0)
  np.testing.assert_array_equal(
    blind.apply(params, x, LABELS, frozen),
    blind.apply(params, x, None, frozen),
  )


def sinusoids(s):
  """Return 256 cosines and sines of times [B]."""
  angles = s[:, None] * 1e4 ** (-np.arange(128) / 128)
  return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


@pytest.mark.parametrize("case", ["conv", "points"])
def test_time_is_projected(case):
  """A timed logit has <e'(s), phi(x)> beside those of the plain one."""
  discriminator, params, _, x = make(case, timed=True)
  s = jnp.linspace(0, 1, BATCH)
  found = jax.jit(discriminator.apply)(params, x, LABELS, s=s)
  p = plain.wide(params)
  groups = {"conv": (2, 4), "points": (2, 2)}[case]
  top = trunk(p["trunk"], np.asarray(x, np.float64), groups)[-1]
  time = p["logit"]["time"]
  hidden = plain.linear(time["hidden"], sinusoids(np.float64(s)))
  hidden = hidden / (1 + np.exp(-hidden))
  phi = top.reshape(BATCH, -1, top.shape[-1]).mean(1)
  embedded = plain.linear(time["output"], hidden)
  expected = logit(p["logit"], top, LABELS) + (embedded * phi).sum(1)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
  assert not np.allclose(found, logit(p["logit"], top, LABELS), atol=0.1)
  with pytest.raises(UsageError, match=r"s=None: a timed .*loss_pairs"):
    discriminator.apply(params, x, LABELS)


@pytest.mark.parametrize("case", ["conv", "points"])
def test_one_without_time_has_no_parameters_for_it(case):
  discriminator, params, _, x = make(case)
  assert not discriminator.timed and "time" not in params["logit"]
  np.testing.assert_array_equal(
    discriminator.apply(params, x, LABELS, s=jnp.ones(BATCH)),
    discriminator.apply(params, x, LABELS),
  )


def test_frozen_parameters_are_an_argument():
  discriminator, params, frozen, x = make("projected")

  def loss(params, frozen, x):
    return discriminator.apply(params, x, LABELS, frozen).sum()

  slopes = jax.jit(jax.grad(loss, (0, 1, 2)))
  heads, trunk, sample = slopes(params, frozen, x)
  for leaf in jax.tree.leaves(trunk):
    assert (leaf == 0).all()
  for leaf in jax.tree.leaves((heads["hidden_0"], heads["logit_1"], sample)):
    assert (leaf != 0).any()
  closed = jax.make_jaxpr(jax.grad(loss, (0, 2)))(params, frozen, x)
  smallest = min(p.size for p in jax.tree.leaves(frozen) if p.ndim > 1)
  assert all(jnp.size(constant) < smallest for constant in closed.consts)
  with pytest.raises(UsageError, match="frozen=None: a projected"):
    discriminator.apply(params, x, LABELS)


@pytest.mark.parametrize(
  ("options", "line"),
  [
    (
      {"depth": 3},
      "depth=3: an image of 7 x 9 can be halved 2 times; give 2 or less, or "
      "larger images",
    ),
    ({"depth": 0}, "depth=0: give 1 or more"),
    ({"width": 0}, "width=0: give 1 or more"),
    ({"norm": "batch"}, "norm='batch': give 'group' or 'none'"),
    (
      {"data_shape": (4, 4)},
      "data_shape=(4, 4): give (height, width, channels), or (dimension,) for "
      "points",
    ),
    (
      {"num_classes": -1},
      "num_classes=-1: give 0 or more",
    ),
    ({"dtype": "float16"}, "dtype=float16: give float32 or bfloat16"),
  ],
)
def test_impossible_options(options, line):
  with pytest.raises(UsageError) as error:
    conv(**options)
  assert str(error.value) == line


def test_another_shape_is_refused():
  discriminator, params, _, x = make("conv")
  with pytest.raises(UsageError, match=r"data_shape=\(7, 9, 2\)"):
    discriminator.apply(params, x[:, 1:], LABELS)


def test_configs_may_name_them():
  context = {"data_shape": SHAPE, "num_classes": 3}
  specification = {
    **{"name": "projected", "width": 6},
    "features": {"name": "conv", "width": 4, "depth": 2},
  }
  discriminator = registry.make(
    "discriminator", specification, field="discriminator", **context
  )
  _, params, frozen, x = make("projected")
  assert discriminator.apply(params, x, LABELS, frozen).shape == (BATCH, 2)
  with pytest.raises(UsageError, match=r"discriminator: depth=9: an image"):
    registry.make(
      "discriminator",
      {"name": "conv", "depth": 9},
      field="discriminator",
      **context,
    )
