"""The programs of a run, from shapes: training, sampling, evaluation."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from jaxflow import conditions, paths
from jaxflow.compilation.report import Program
from jaxflow.errors import named
from jaxflow.evaluation.collecting import extraction
from jaxflow.models import Extractor
from jaxflow.parallel import sharding
from jaxflow.plans import Model, Plan
from jaxflow.runs.run import Run
from jaxflow.training.state import BASE
from jaxflow.types import Array, PyTree

# Weights, or their shapes, and `(weights, samples) -> images`.
Decoder = tuple[PyTree, Callable[[PyTree, Array], Array]]


def programs(
  run: Run,
  mesh: Mesh,
  *,
  steps: int,
  networks: Sequence[Extractor] = (),
  decoder: Decoder | None = None,
) -> list[Program]:
  """Return training step, sampler and evaluation step of a run."""
  return [
    training_step(run, mesh, steps=steps),
    sampler(run, mesh),
    evaluation_step(run, mesh, networks=networks, decoder=decoder),
  ]


def training_step(run: Run, mesh: Mesh, *, steps: int) -> Program:
  """Return the training step, as `jaxflow train` compiles it.

  `steps` is the number of steps per dispatch.
  """
  state = run.template(mesh)
  batch = run.batch_shapes(mesh, steps=steps)
  seed = jax.ShapeDtypeStruct(
    (), jnp.uint32, sharding=sharding.replicated(mesh)
  )
  return Program(
    name="training step",
    function=run.jitted_step(state, mesh),
    arguments=(seed, state, batch),
    resident={
      "parameters": (state.params, state.loss_params),
      "averages": state.ema,
      "optimizer": state.opt_state,
      "memory": state.memory,
      **{k.replace("_", " "): v for k, v in state.companions.items()},
      "frozen networks": state.frozen,
      "batch": batch,
    },
    steps=steps,
    rows=run.plan.train.batch_size,
  )


def sampler(run: Run, mesh: Mesh) -> Program:
  """Return the sampler with the fewest network calls, for a full batch."""
  rows, nfe = run.plan.sample.batch_size, _fewest_calls(run)
  params = _sampling_params(run, mesh)
  program = sampler_program(run.plan, params, mesh, nfe=nfe, rows=rows)
  notes = _undivided("sample.batch_size", rows, mesh)
  return dataclasses.replace(program, notes=notes)


def evaluation_step(
  run: Run,
  mesh: Mesh,
  *,
  networks: Sequence[Extractor] = (),
  decoder: Decoder | None = None,
) -> Program:
  """Return the sampler followed by the feature networks, for a full batch.

  Features leave the devices row by row; each host reduces its own rows. The
  networks see what the decoder, if there is one, makes of the samples.
  """
  model, rows = run.model, run.plan.evaluation.batch_size
  params, where = _sampling_params(run, mesh), _placement(rows, mesh)
  inputs = _sampler_inputs(model, rows, mesh)
  draw = model.make_sampler(run.plan.sample, _fewest_calls(run))
  draw = sharding.with_mesh(mesh, draw)
  seen = {network.name: network.params for network in networks}
  resident = {"parameters": params, "feature networks": seen, "batch": inputs}
  decode = None
  if decoder is not None:
    resident["decoder"], decode = decoder
    seen = seen | {"decoder": decoder[0]}
  outputs_of = extraction(networks, decode)

  def evaluate(params, weights, *inputs):
    return outputs_of(weights, draw(params, *inputs))

  return Program(
    name="evaluation step",
    function=jax.jit(evaluate, out_shardings=where),
    arguments=(params, _shapes(seen, sharding.replicated(mesh)), *inputs),
    resident=resident,
    rows=rows,
    notes=_undivided("evaluation.batch_size", rows, mesh),
  )


def sampler_program(
  plan: Plan, params: PyTree, mesh: Mesh, *, nfe: int, rows: int
) -> Program:
  """Return the sampler, `(params, noise, key, labels) -> samples`.

  Every device draws all `rows` samples where the mesh does not divide them.
  The parameters may be shapes.
  """
  where = _placement(rows, mesh)
  draw = sharding.with_mesh(mesh, plan.model.make_sampler(plan.sample, nfe))
  inputs = _sampler_inputs(plan.model, rows, mesh)
  return Program(
    name=f"sampler, {nfe} call{'s' if nfe > 1 else ''}",
    function=jax.jit(draw, out_shardings=where),
    arguments=(params, *inputs),
    resident={"parameters": params, "batch": inputs},
    rows=rows,
  )


def network_program(
  plan: Plan, params: PyTree, mesh: Mesh, *, nfe: int, rows: int
) -> Program:
  """Return the network call that `sampler_program` makes.

  It is `(params, xt, t, s, cond) -> prediction`. The inputs come from a trace
  of the sampler: with guidance they may have twice the rows or a guidance
  scale. If calls differ, as for guidance in an interval of times, the largest
  call counts.
  """
  model, where = plan.model, _placement(rows, mesh)
  seen: list[tuple[Any, ...]] = []

  def record(params, xt, t, s, cond, key=None):
    seen.append(_shapes((xt, t, s, cond), where))
    return model.network.apply(params, xt, t, s, cond, key)

  network = dataclasses.replace(model.network, apply=record)
  recorded = dataclasses.replace(model, network=network)
  draw = recorded.make_sampler(plan.sample, nfe)
  jax.eval_shape(draw, params, *_sampler_inputs(model, rows, mesh))
  inputs = max(seen, key=lambda given: given[0].shape[0])
  apply = sharding.with_mesh(mesh, model.network.apply)
  return Program(
    name="network call",
    function=jax.jit(apply, out_shardings=where),
    arguments=(params, *inputs),
    resident={"parameters": params, "batch": inputs},
    rows=rows,
  )


def example_inputs(program: Program, key: jax.Array) -> tuple[PyTree, ...]:
  """Return arrays for the arguments of a sampler or its call after the first.

  They are unit noise for samples, 0.5 for times, 0 for labels, and sharded as
  the program asks.
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


def _fewest_calls(run: Run) -> int:
  """Return 1, or the config's number of calls where one makes no sample."""
  sample = run.plan.sample
  if run.model.allows(sample, 1):
    return 1
  # A solver of two calls a step, or a sampler that has no single step.
  with named(nfe="sample.nfe"):
    run.model.make_sampler(sample, sample.nfe)
  return sample.nfe


def _sampling_params(run: Run, mesh: Mesh) -> PyTree:
  """Return the shapes of the parameters that samples are drawn with."""
  ema = run.plan.sample.ema
  template = run.sampling_template(mesh, ema)
  # An adapter is merged with its base.
  return template.frozen.get(BASE) or run.select(template, ema)


def _sampler_inputs(
  model: Model, rows: int, mesh: Mesh
) -> tuple[PyTree, PyTree, PyTree]:
  """Return the shapes of noise, key and labels; None without labels."""
  where = _placement(rows, mesh)
  shape = (rows, *model.shape)
  noise = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=where)
  key = jax.eval_shape(jax.random.key, 0)
  labels = conditions.shapes(model.null_cond, rows, sharding=where)
  return noise, _shapes(key, sharding.replicated(mesh)), labels


def _shapes(tree: PyTree, where: NamedSharding) -> PyTree:
  """Return the shapes of arrays, or of shapes, placed on devices."""

  def shape(x):
    dtype = jnp.result_type(x)
    return jax.ShapeDtypeStruct(jnp.shape(x), dtype, sharding=where)

  return jax.tree.map(shape, tree)


def _placement(rows: int, mesh: Mesh) -> NamedSharding:
  """Return the sharding of samples: split if the mesh divides them."""
  if rows % sharding.row_shards(mesh):
    return sharding.replicated(mesh)
  return sharding.row_sharding(mesh)


def _undivided(name: str, rows: int, mesh: Mesh) -> tuple[str, ...]:
  """Return a note if every device draws all samples."""
  shards = sharding.row_shards(mesh)
  if rows % shards == 0:
    return ()
  return (
    f"{name}={rows} is no multiple of {shards}: samples are not "
    "split over devices",
  )
