"""Attention in blocks is attention, and so are its derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxflow.models import SIZES as SIZES_OF
from jaxflow.models import attention as attention_lib
from jaxflow.models import dit
from jaxflow.models.attention import attend, attention

# Tokens, keys and keys a block: one block, equal blocks, a block to fill up.
SIZES = ((5, 5, 8), (12, 12, 4), (7, 11, 4))
MASKS = ("none", "keys", "causal")


def plain(q, k, v, mask=None):
  """The definition, all pairs at once."""
  scores = jnp.einsum("bthd,bshd->bhts", q, k) / np.sqrt(q.shape[-1])
  if mask is not None:
    shown = jnp.broadcast_to(mask, scores.shape)
    scores = jnp.where(shown, scores, -1e30)
  return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores), v)


def arrays(size, seed, dtype=jnp.float64):
  tokens, keys, _ = size
  made = jax.random.split(jax.random.key(seed), 3)
  lengths = tokens, keys, keys
  return tuple(
    2 * jax.random.normal(key, (2, length, 3, 4), dtype)
    for key, length in zip(made, lengths, strict=True)
  )


def mask_of(name, size):
  tokens, keys, _ = size
  if name == "none":
    return None
  if name == "keys":
    return (jnp.arange(keys) % 3 < 2)[None, None, None]
  return jnp.arange(tokens)[:, None] >= jnp.arange(keys)[None]


def loss_of(attention):
  return lambda *x: (jnp.sin(attention(*x)) ** 2).sum()


def along(function, point, direction):
  return jax.jvp(function, point, direction)


ORDERS = {
  "value": lambda f, x, dx: f(*x),
  "forward": along,
  "reverse": lambda f, x, dx: jax.grad(loss_of(f), (0, 1, 2))(*x),
  "reverse over forward": lambda f, x, dx: jax.grad(
    lambda *x: along(loss_of(f), x, dx)[1], (0, 1, 2)
  )(*x),
  "forward over reverse": lambda f, x, dx: along(
    jax.grad(loss_of(f), (0, 1, 2)), x, dx
  ),
  "forward twice": lambda f, x, dx: along(lambda *x: along(f, x, dx)[1], x, dx),
  # As MeanFlow: the derivative goes into a target.
  "target": lambda f, x, dx: jax.grad(
    lambda *x: ((f(*x) - jax.lax.stop_gradient(along(f, x, dx)[1])) ** 2).sum(),
    (0, 1, 2),
  )(*x),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("order", ORDERS)
def test_every_derivative_is_that_of_the_definition(x64, order, size, mask):
  seen = mask_of(mask, size)
  point, direction = arrays(size, 0), arrays(size, 1)

  def ours(*x):
    return attend(*x, mask=seen, block=size[2])

  def theirs(*x):
    return plain(*x, mask=seen)

  def both(*given):
    return ORDERS[order](ours, *given), ORDERS[order](theirs, *given)

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11),
    *jax.jit(both)(point, direction),
  )


def test_it_may_be_mapped_and_recomputed(x64):
  point = arrays(SIZES[1], 0)

  def loss(*x):
    return jax.checkpoint(loss_of(functools.partial(attend, block=4)))(*x)

  mapped = jax.vmap(jax.grad(loss))(*(jnp.stack([x, 2 * x]) for x in point))
  expected = jax.grad(loss_of(plain))(*(2 * x for x in point))
  np.testing.assert_allclose(mapped[1], expected, rtol=1e-9, atol=1e-11)


def test_sums_of_bfloat16_are_float32():
  x = arrays((64, 512, 0), 0, jnp.float32)
  rounded = [a.astype(jnp.bfloat16) for a in x]
  exact = plain(*(a.astype(jnp.float32) for a in rounded))
  found = attend(*rounded)
  assert found.dtype == jnp.bfloat16
  # The weights and the result have 8 bits each.
  np.testing.assert_allclose(found.astype(jnp.float32), exact, atol=2e-2)


def test_memory_grows_with_the_tokens_and_not_with_their_square():
  def temporary(kind, tokens):
    shapes = (jax.ShapeDtypeStruct((1, tokens, 2, 16), jnp.float32),) * 3
    function = functools.partial(attention, kind=kind)
    derivative = functools.partial(ORDERS["target"], function)
    compiled = jax.jit(derivative).lower(shapes, shapes).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert temporary("blocks", 4096) < 2.1 * temporary("blocks", 2048)
  assert temporary("xla", 4096) > 3.8 * temporary("xla", 2048)
  assert temporary("blocks", 4096) < temporary("xla", 4096) / 10


@pytest.mark.parametrize("long", [False, True])
def test_many_tokens_go_in_blocks(monkeypatch, long):
  monkeypatch.setattr(attention_lib, "LONG", 512 if long else 513)
  shapes = [jax.ShapeDtypeStruct((1, 512, 1, 4), jnp.float32)] * 3
  # Another function each time: JAX keeps what it has traced.
  traced = jax.make_jaxpr(lambda *x: attention(*x))(*shapes)
  assert ("scan" in str(traced)) == long


def test_networks_attend_alike():
  options = {**SIZES_OF["tiny"], "data_shape": (8, 8, 1), "patch_size": 2}
  networks = [dit(**options, attention=kind) for kind in ("xla", "blocks")]
  params = networks[0].init(jax.random.key(0))
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  # A block begins as the identity.
  leaves = [
    x + 0.1 * jax.random.normal(key, x.shape)
    for x, key in zip(leaves, keys, strict=True)
  ]
  xt = jax.random.normal(jax.random.key(2), (2, 8, 8, 1))
  t = jnp.array([0.3, 0.9])
  one, other = (
    n.apply(tree.unflatten(leaves), xt, t, t, None) for n in networks
  )
  # Three blocks of float32, summed in another order.
  np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
  assert np.abs(one).max() > 0.1
