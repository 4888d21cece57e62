"""Attention in blocks is attention, and so are its derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxflow.models.attention import attend

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
  ours = ORDERS[order](
    lambda *x: attend(*x, mask=seen, block=size[2]), point, direction
  )
  theirs = ORDERS[order](lambda *x: plain(*x, mask=seen), point, direction)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11),
    *(ours, theirs),
  )
