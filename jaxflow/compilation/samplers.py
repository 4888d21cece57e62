"""A sampler of so many samples, and the network call that it makes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from jaxflow.compilation.program import Program
from jaxflow.compilation.programs import sampler_inputs
from jaxflow.parallel import sharding
from jaxflow.runs.model import Model
from jaxflow.types import PyTree


def sampler_program(
  model: Model, params: PyTree, mesh: Mesh, *, nfe: int, rows: int, field: str
) -> Program:
  """Return the sampler, from noise to samples.

  Args:
    model: What samples.
    params: Its parameters, or their shapes.
    mesh: The devices.
    nfe: Network calls per sample.
    rows: Samples at a time; every device draws all of them where the mesh does
      not divide them.
    field: The flag or config field that asks for `nfe`, for messages.

  Returns:
    The program, `(params, noise, key, labels) -> samples`.

  Raises:
    UsageError: If no number of steps makes `nfe` calls.
  """
  where = _where(rows, mesh)
  sampler = sharding.over(mesh, model.make_sampler(nfe, field))
  inputs = sampler_inputs(model, rows, where)
  return Program(
    name=f"sampler, {nfe} call{'s' if nfe > 1 else ''}",
    function=jax.jit(sampler, out_shardings=where),
    arguments=(params, *inputs),
    resident={"parameters": params, "batch": inputs},
    rows=rows,
  )


def network_program(
  model: Model, params: PyTree, mesh: Mesh, *, nfe: int, rows: int, field: str
) -> Program:
  """Return one network call, as the sampler makes it.

  What the sampler hands to its network is read from its trace: a guided one
  calls it with twice the rows, another network has guidance as an input. Where
  calls differ (guidance in an interval of times), it is the largest.

  Args:
    model: As of `sampler_program`, and the other arguments too.
    params: Its parameters, or their shapes.
    mesh: The devices.
    nfe: Network calls per sample.
    rows: Samples at a time.
    field: The flag or config field that asks for `nfe`.

  Returns:
    The program, `(params, xt, t, s, cond) -> prediction`.
  """
  seen: list[tuple[Any, ...]] = []

  def note(params, xt, t, s, cond, key=None):
    seen.append(
      jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)),
        (xt, t, s, cond),
      )
    )
    return model.network.apply(params, xt, t, s, cond, key)

  network = dataclasses.replace(model.network, apply=note)
  noted = dataclasses.replace(model, network=network)
  where = _where(rows, mesh)
  jax.eval_shape(
    noted.make_sampler(nfe, field), params, *sampler_inputs(model, rows, where)
  )
  call = max(seen, key=lambda given: given[0].shape[0])
  inputs = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), call
  )
  return Program(
    name="network call",
    function=jax.jit(
      sharding.over(mesh, model.network.apply), out_shardings=where
    ),
    arguments=(params, *inputs),
    resident={"parameters": params, "batch": inputs},
    rows=rows,
  )


def example_inputs(program: Program, key: jax.Array) -> tuple[PyTree, ...]:
  """Return arrays for all that a program takes after its parameters.

  Args:
    program: One of this module.
    key: Random key.

  Returns:
    Unit noise for samples, 0.5 for times, the first class for labels, where the
    program wants them.
  """
  shapes = program.arguments[1:]

  def value(shape):
    if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
      return key
    if not jnp.issubdtype(shape.dtype, jnp.floating):
      return jnp.zeros(shape.shape, shape.dtype)
    if len(shape.shape) > 1:
      return jax.random.normal(key, shape.shape, shape.dtype)
    return jnp.full(shape.shape, 0.5, shape.dtype)

  shardings = jax.tree.map(lambda shape: shape.sharding, shapes)
  make = jax.jit(lambda: jax.tree.map(value, shapes), out_shardings=shardings)
  return make()


def _where(rows: int, mesh: Mesh) -> NamedSharding:
  """Return where samples lie: split, if the mesh divides them."""
  if rows % sharding.row_shards(mesh):
    return sharding.replicated(mesh)
  return sharding.row_sharding(mesh)
