"""Kernels of attention, interpreted, and how JAX composes them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.interpreters import partial_eval
from test_attention import ORDERS, plain

from jaxflow.errors import UsageError
from jaxflow.models import SIZES as SIZES_OF
from jaxflow.models import dit
from jaxflow.models.attention import attend, attention
from jaxflow.models.fused_attention import Blocks, fused
from jaxflow.parallel import sharding

# Queries and keys: blocks of 4 and of 8 that are full; some to fill up; one.
SIZES = ((8, 16), (11, 19), (3, 5))
ours = functools.partial(
  fused, blocks=Blocks(queries=4, keys=8, lanes=1, interpret=True)
)


def arrays(size, seed, dtype=jnp.float64, batch=2, heads=2):
  tokens, keys = size
  made = jax.random.split(jax.random.key(seed), 3)
  return tuple(
    2 * jax.random.normal(key, (batch, length, heads, 4), dtype)
    for key, length in zip(made, (tokens, keys, keys), strict=True)
  )


def close(found, expected, tolerance):
  def check(a, b):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)

  jax.tree.map(check, found, expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("order", ORDERS)
def test_every_derivative_is_that_of_the_definition(x64, order, size):
  point, direction = arrays(size, 0), arrays(size, 1)

  def both(*given):
    return [ORDERS[order](f, *given) for f in (ours, plain)]

  close(*jax.jit(both)(point, direction), 1e-9)


@pytest.mark.parametrize("order", ["forward", "target"])
def test_float32_is_as_exact_as_in_blocks(order):
  point, direction = (arrays(SIZES[1], i, jnp.float32) for i in (0, 1))

  def both(*given):
    return [ORDERS[order](f, *given) for f in (ours, attend)]

  found, expected = jax.jit(both)(point, direction)
  scale = max(np.abs(x).max() for x in jax.tree.leaves(expected))
  close(found, expected, 1e-5 * scale)


def test_sums_of_bfloat16_are_float32():
  x = arrays((8, 512), 0, jnp.float32)
  rounded = [a.astype(jnp.bfloat16) for a in x]
  exact = plain(*(a.astype(jnp.float32) for a in rounded))
  found = ours(*rounded)
  assert found.dtype == jnp.bfloat16
  # The weights and the result have 8 bits each.
  close(found.astype(jnp.float32), exact, 2e-2)


def kernels(function, *given):
  """Return the kernels and loops in what a function computes, as a set."""
  closed = jax.make_jaxpr(function)(*given)
  used = [True] * len(closed.jaxpr.outvars)
  found = set()

  def visit(jaxpr):
    for equation in jaxpr.eqns:
      found.add(equation.primitive.name.removeprefix("attention_"))
      for inner in jaxprs_in_params(equation.params):
        visit(inner)

  visit(partial_eval.dce_jaxpr(closed.jaxpr, used)[0])
  known = {"value", "value_and_tangent", "tangent", "gradient"}
  return found & (known | {"scan", "while"})


def layers(function, *, scan, remat):
  """Return three layers of attention, as of a network."""

  def layer(x, weight):
    return x + function(weight * x, x, x), None

  layer = jax.checkpoint(layer, prevent_cse=not scan) if remat else layer

  def network(x, weights):
    if scan:
      return jax.lax.scan(layer, x, weights)[0]
    for weight in weights:
      x, _ = layer(x, weight)
    return x

  return network


def mean_flow_loss(network, x, weights):
  """A target with the tangent, of which the loss has no derivative."""
  value, tangent = jax.jvp(network, (x, weights), (jnp.cos(x), 0 * weights))
  return ((value - jax.lax.stop_gradient(x - tangent)) ** 2).mean()


def square_loss(network, x, weights):
  return (network(x, weights) ** 2).mean()


LOSSES = {
  square_loss: {"value", "gradient"},
  mean_flow_loss: {"value_and_tangent", "gradient"},
}


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_of_layers_are_made_of_kernels(x64, loss, scan, remat):
  x, weights = arrays((6, 6), 0)[0], jnp.array([0.5, 1.0, 1.5])

  def gradients(function, *given):
    network = layers(function, scan=scan, remat=remat)
    return jax.grad(loss, (1, 2))(network, *given)

  close(
    jax.jit(functools.partial(gradients, ours))(x, weights),
    jax.jit(functools.partial(gradients, plain))(x, weights),
    1e-9,
  )
  found = kernels(functools.partial(gradients, ours), x, weights)
  # A layer that is computed again has no use for the tangent.
  again = {"value"} if remat else set()
  assert found == LOSSES[loss] | again | ({"scan"} if scan else set())


def test_a_tangent_may_be_taken_later(x64):
  point, direction = arrays(SIZES[1], 0), arrays(SIZES[1], 1)
  found = jax.linearize(ours, *point)[1](*direction)
  close(found, jax.jvp(plain, point, direction)[1], 1e-9)


def test_each_order_takes_the_kernels_that_it_needs(x64):
  point, direction = arrays(SIZES[0], 0), arrays(SIZES[0], 1)

  def of(order):
    return kernels(functools.partial(ORDERS[order], ours), point, direction)

  assert of("value") == {"value"}
  assert of("forward") == {"value_and_tangent"}
  assert of("reverse") == {"value", "gradient"}


@pytest.mark.parametrize("order", ["value", "forward", "target"])
def test_it_may_be_mapped(x64, order):
  points, directions = (
    jax.tree.map(lambda *x: jnp.stack(x, 1), *(arrays(SIZES[1], i) for i in s))
    for s in ((0, 1), (2, 3))
  )
  # Queries of their own, keys and values in common.
  axes = (1, None, None)
  given = [(x[0], x[1][:, 0], x[2][:, 0]) for x in (points, directions)]

  def both(*given):
    return [
      jax.vmap(functools.partial(ORDERS[order], f), (axes, axes))(*given)
      for f in (ours, plain)
    ]

  close(*jax.jit(both)(*given), 1e-9)


def test_devices_share_out_samples_and_heads(x64):
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  point, direction = (arrays(SIZES[1], i, batch=4) for i in (0, 1))
  target = functools.partial(ORDERS["target"], ours)
  placed = jax.device_put((point, direction), sharding.row_sharding(mesh))
  found = jax.jit(sharding.with_mesh(mesh, target))(*placed)
  close(found, jax.jit(target)(point, direction), 1e-12)
  # Three samples are no even share: every device has them all.
  fewer = jax.tree.map(lambda x: x[:3], (point, direction))
  everywhere = jax.device_put(fewer, sharding.replicated(mesh))
  found = jax.jit(sharding.with_mesh(mesh, target))(*everywhere)
  close(found, jax.jit(target)(*fewer), 1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("features", [64, 72, 128])
def test_it_lowers_for_tpus(features, dtype):
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  where = sharding.row_sharding(mesh)
  shape = jax.ShapeDtypeStruct((4, 1000, 2, features), dtype, sharding=where)
  of = functools.partial(
    ORDERS["target"], functools.partial(attention, kind="kernel")
  )
  traced = jax.jit(sharding.with_mesh(mesh, of)).trace(
    (shape,) * 3, (shape,) * 3
  )
  text = traced.lower(lowering_platforms=("tpu",)).as_text()
  # Value; value with tangent; gradients by queries; and by keys and values.
  assert text.count("@tpu_custom_call") == 4


def test_another_platform_is_refused():
  x = jnp.ones((1, 4, 1, 8))
  with pytest.raises(UsageError, match=r"attention='kernel': .* give 'auto'"):
    attention(x, x, x, kind="kernel")
  options = {**SIZES_OF["tiny"], "data_shape": (8, 8, 1), "patch_size": 2}
  network, x, t = (
    dit(**options, attention="kernel"),
    jnp.ones((1, 8, 8, 1)),
    jnp.ones(1),
  )
  params = network.init(jax.random.key(0))
  with pytest.raises(UsageError, match="attention='kernel'"):
    jax.jit(network.apply)(params, x, t, t, None)
