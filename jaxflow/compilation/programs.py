"""The programs of a run, from shapes: training, sampling, evaluation."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxflow.compilation.program import Program
from jaxflow.errors import UsageError, named
from jaxflow.evaluation.collecting import extraction
from jaxflow.models import Extractor
from jaxflow.parallel import sharding
from jaxflow.plans import Model
from jaxflow.runs.run import Run
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
  """Return training step, sampler and evaluation step of a run.

  Args:
    run: The run.
    mesh: The devices.
    steps: Training steps per dispatch.
    networks: Feature networks of the evaluation.
    decoder: Decoder from latents to the images that `networks` take, or None.
  """
  return [
    training_step(run, mesh, steps=steps),
    sampler(run, mesh),
    evaluation_step(run, mesh, networks=networks, decoder=decoder),
  ]


def training_step(run: Run, mesh: Mesh, *, steps: int) -> Program:
  """Return the training step as `jaxflow train` compiles it.

  Args:
    run: The run.
    mesh: The devices.
    steps: Steps per dispatch.
  """
  state = run.template(mesh)
  batch = run.batch_shapes(mesh, steps=steps)
  seed = jax.ShapeDtypeStruct(
    (), jnp.uint32, sharding=sharding.replicated(mesh)
  )
  resident = {
    "parameters": (state.params, state.loss_params),
    "averages": state.ema,
    "optimizer": state.opt_state,
    "discriminator": state.adversary,
    "frozen networks": state.frozen,
    "batch": batch,
  }
  return Program(
    name="training step",
    function=run.jitted_step(state, mesh),
    arguments=(seed, state, batch),
    resident=resident,
    steps=steps,
    rows=run.plan.train.batch_size,
  )


def sampler(run: Run, mesh: Mesh) -> Program:
  """Return the sampler with the fewest network calls, for a full batch.

  Args:
    run: The run.
    mesh: The devices.

  Returns:
    The program of `sample.batch_size` samples.
  """
  draw, calls = _drawer(run, mesh)
  ema = run.plan.sample.ema
  params = run.select(run.sampling_template(mesh, ema), ema)
  rows = run.plan.sample.batch_size
  where = placement(rows, mesh)
  inputs = sampler_inputs(run.model, rows, where)
  return Program(
    name=f"sampler, {calls} call{'s' if calls > 1 else ''}",
    function=jax.jit(draw, out_shardings=where),
    arguments=(params, *inputs),
    resident={"parameters": params, "batch": inputs},
    rows=rows,
    notes=_undivided("sample.batch_size", rows, mesh),
  )


def evaluation_step(
  run: Run,
  mesh: Mesh,
  *,
  networks: Sequence[Extractor] = (),
  decoder: Decoder | None = None,
) -> Program:
  """Return the sampler followed by the feature networks.

  Features leave the devices row by row; each host reduces its own rows.

  Args:
    run: The run.
    mesh: The devices.
    networks: The feature networks.
    decoder: Decoder of latents, or None.

  Returns:
    The program of `evaluation.batch_size` samples.
  """
  draw, _ = _drawer(run, mesh)
  ema = run.plan.sample.ema
  params = run.select(run.sampling_template(mesh, ema), ema)
  rows = run.plan.evaluation.batch_size
  where = placement(rows, mesh)
  inputs = sampler_inputs(run.model, rows, where)
  seen = {network.name: network.params for network in networks}
  resident = {"parameters": params, "feature networks": seen, "batch": inputs}
  decode = None
  if decoder is not None:
    resident["decoder"], decode = decoder
    seen = seen | {"decoder": decoder[0]}
  weights = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=sharding.replicated(mesh)
    ),
    seen,
  )
  outputs_of = extraction(networks, decode)

  def evaluate(params, weights, *inputs):
    return outputs_of(weights, draw(params, *inputs))

  return Program(
    name="evaluation step",
    function=jax.jit(evaluate, out_shardings=where),
    arguments=(params, weights, *inputs),
    resident=resident,
    rows=rows,
    notes=_undivided("evaluation.batch_size", rows, mesh),
  )


def _drawer(run: Run, mesh: Mesh) -> tuple[Callable[..., Array], int]:
  """Return the sampler with the fewest calls, and their number."""
  sample = run.plan.sample
  try:
    return sharding.with_mesh(mesh, run.model.make_sampler(sample, 1)), 1
  except UsageError:
    # A solver of two calls a step, or a sampler that has no single step.
    with named(nfe="sample.nfe"):
      sampler = run.model.make_sampler(sample, sample.nfe)
    return sharding.with_mesh(mesh, sampler), sample.nfe


def placement(rows: int, mesh: Mesh) -> NamedSharding:
  """Return the sharding of samples: split if the mesh divides them."""
  if rows % sharding.row_shards(mesh):
    return sharding.replicated(mesh)
  return sharding.row_sharding(mesh)


def _undivided(name: str, rows: int, mesh: Mesh) -> tuple[str, ...]:
  """Say that every device draws all samples."""
  shards = sharding.row_shards(mesh)
  if rows % shards == 0:
    return ()
  return (
    f"{name}={rows} is no multiple of {shards}: samples are not "
    "split over devices",
  )


def sampler_inputs(
  model: Model, rows: int, where: NamedSharding
) -> tuple[PyTree, PyTree, PyTree]:
  """Return the shapes of noise, key and labels.

  Args:
    model: The model.
    rows: Number of samples.
    where: Sharding of the samples.

  Returns:
    A sampler's arguments after its parameters; labels are None without classes.
  """
  shape = (rows, *model.shape)
  noise = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=where)
  key = jax.ShapeDtypeStruct(
    (),
    jax.eval_shape(jax.random.key, 0).dtype,
    sharding=NamedSharding(where.mesh, PartitionSpec()),
  )
  labels = None
  if model.num_classes:
    labels = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=where)
  return noise, key, labels
