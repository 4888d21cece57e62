"""Programs of a sampler with a given NFE, and of its network call."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxflow import paths
from jaxflow.compilation.program import Program
from jaxflow.compilation.programs import placement, sampler_inputs
from jaxflow.parallel import sharding
from jaxflow.plans import Plan
from jaxflow.types import PyTree


def sampler_program(
  plan: Plan, params: PyTree, mesh: Mesh, *, nfe: int, rows: int
) -> Program:
  """Return the sampler, from noise to samples.

  Args:
    plan: The plan of a run.
    params: Its parameters, or their shapes.
    mesh: The devices.
    nfe: Network calls per sample.
    rows: Samples at a time; every device draws all of them where the mesh does
      not divide them.

  Returns:
    The program, `(params, noise, key, labels) -> samples`.

  Raises:
    UsageError: No number of steps makes `nfe` calls.
  """
  where = placement(rows, mesh)
  sampler = sharding.with_mesh(mesh, plan.model.make_sampler(plan.sample, nfe))
  inputs = sampler_inputs(plan.model, rows, where)
  return Program(
    name=f"sampler, {nfe} call{'s' if nfe > 1 else ''}",
    function=jax.jit(sampler, out_shardings=where),
    arguments=(params, *inputs),
    resident={"parameters": params, "batch": inputs},
    rows=rows,
  )


def network_program(
  plan: Plan, params: PyTree, mesh: Mesh, *, nfe: int, rows: int
) -> Program:
  """Return the network call that the sampler makes.

  The inputs come from a trace of the sampler: with guidance they may have twice
  the rows or a guidance scale. If calls differ, as for guidance in an interval
  of times, the largest call counts.

  Args:
    plan: The plan; all arguments are those of `sampler_program`.
    params: Its parameters, or their shapes.
    mesh: The devices.
    nfe: Network calls per sample.
    rows: Samples at a time.

  Returns:
    The program, `(params, xt, t, s, cond) -> prediction`.
  """
  model = plan.model
  seen: list[tuple[Any, ...]] = []

  def record(params, xt, t, s, cond, key=None):
    seen.append(
      jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)),
        (xt, t, s, cond),
      )
    )
    return model.network.apply(params, xt, t, s, cond, key)

  network = dataclasses.replace(model.network, apply=record)
  recorded = dataclasses.replace(model, network=network)
  where = placement(rows, mesh)
  jax.eval_shape(
    recorded.make_sampler(plan.sample, nfe),
    params,
    *sampler_inputs(model, rows, where),
  )
  call = max(seen, key=lambda given: given[0].shape[0])
  inputs = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), call
  )
  return Program(
    name="network call",
    function=jax.jit(
      sharding.with_mesh(mesh, model.network.apply), out_shardings=where
    ),
    arguments=(params, *inputs),
    resident={"parameters": params, "batch": inputs},
    rows=rows,
  )


def example_inputs(program: Program, key: jax.Array) -> tuple[PyTree, ...]:
  """Return example arrays for a program's arguments after its parameters.

  Args:
    program: A program of this module.
    key: Random key.

  Returns:
    Unit noise for samples, 0.5 for times, 0 for labels, sharded as requested.
  """
  shapes = program.arguments[1:]

  def value(shape):
    if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
      return key
    if not jnp.issubdtype(shape.dtype, jnp.floating):
      return jnp.zeros(shape.shape, shape.dtype)
    if len(shape.shape) > 1:
      return paths.standard_normal(key, shape.shape, shape.dtype)
    return jnp.full(shape.shape, 0.5, shape.dtype)

  shardings = jax.tree.map(lambda shape: shape.sharding, shapes)
  make = jax.jit(lambda: jax.tree.map(value, shapes), out_shardings=shardings)
  return make()
