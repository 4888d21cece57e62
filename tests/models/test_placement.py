"""Rows of activations stay where the batch has them."""

import functools

import fast_compile
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from jaxflow.compilation import collectives
from jaxflow.compilation.hlo import Module
from jaxflow.models.layers import TokenLinear, by_rows
from jaxflow.parallel import sharding

ROWS, WIDTH = 16, 256


def product(keep, x, w):
  return keep(keep(x) @ w).sum()


def moved(keep, mesh, spec):
  """Return the shapes that the gradient of a product by `w` moves, by kind."""
  x = jax.ShapeDtypeStruct(
    (ROWS, WIDTH), jnp.float32, sharding=sharding.row_sharding(mesh)
  )
  w = jax.ShapeDtypeStruct(
    (WIDTH, WIDTH), jnp.float32, sharding=NamedSharding(mesh, spec)
  )
  gradient = jax.grad(functools.partial(product, keep), argnums=(0, 1))
  lowered = jax.jit(sharding.with_mesh(mesh, gradient)).lower(x, w)
  compiled = lowered.compile(compiler_options=fast_compile.OPTIONS)
  found = collectives(Module.parse(compiled.as_text()))
  return {shape.dims for c in found for shape in c.shapes}


@pytest.mark.parametrize("spec", [("fsdp", None), (None, "fsdp")])
def test_parameters_move_and_rows_do_not(spec):
  mesh = sharding.make_mesh(data=1, fsdp=8)
  shapes = moved(by_rows, mesh, PartitionSpec(*spec))
  assert shapes
  assert not any(ROWS in shape for shape in shapes)


def test_the_compiler_would_rather_move_few_rows():
  mesh = sharding.make_mesh(data=1, fsdp=8)
  shapes = moved(lambda x: x, mesh, PartitionSpec(None, "fsdp"))
  assert any(ROWS in shape for shape in shapes)


def test_other_axes_are_left_to_the_compiler():
  mesh = sharding.make_mesh(data=4, tensor=2)
  both = NamedSharding(mesh, PartitionSpec(sharding.ROWS, "tensor"))
  x = jax.device_put(jnp.ones((ROWS, WIDTH)), both)
  kept = jax.jit(sharding.with_mesh(mesh, by_rows))(x)
  assert kept.sharding.is_equivalent_to(both, 2)


@pytest.mark.parametrize(("samples", "kept"), [(3, False), (8, True)])
def test_a_sample_is_not_split_over_devices(samples, kept):
  """3 samples of 8 tokens are 24 rows, 3 on each of 8 devices."""
  linear = TokenLinear(16, 16, rngs=nnx.Rngs(0))
  x = jnp.ones((samples, 8, 16))
  placed = sharding.with_mesh(sharding.make_mesh(), lambda x: linear(x))
  text = jax.jit(placed).lower(x).as_text()
  assert ("sharding_constraint" in text) == kept


def test_rows_that_no_mesh_divides_are_left_alone():
  mesh = sharding.make_mesh()
  x = jnp.ones((3, WIDTH))
  assert by_rows(x) is x
  text = jax.jit(sharding.with_mesh(mesh, by_rows)).lower(x).as_text()
  assert "sharding_constraint" not in text
