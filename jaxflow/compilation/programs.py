"""The programs of a run from shapes: training, sampling, evaluation."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from jaxflow.errors import UsageError
from jaxflow.evaluation.moments import LARGEST, batch_moments
from jaxflow.runs import Run
from jaxflow.training import sharding
from jaxflow.types import Array, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
  """A program that can be compiled without data or parameters.

  Attributes:
    name: What it does.
    function: The jitted function.
    arguments: Its positional arguments as `jax.ShapeDtypeStruct`.
    kept: Those of them that stay in memory, by what they are.
    steps: How many steps one execution takes.
    rows: Samples of a step, over all devices.
    notes: What of it is not as in a run.
  """

  name: str
  function: Any
  arguments: tuple[PyTree, ...]
  kept: dict[str, PyTree]
  steps: int = 1
  rows: int
  notes: tuple[str, ...] = ()

  def lower(self, platform: str | None) -> jax.stages.Lowered:
    """Lower it.

    Args:
      platform: What for, "tpu" for instance; None is the host's.

    Returns:
      The lowered program.

    Example:
      >>> x = jax.ShapeDtypeStruct((2, 3), jnp.float32)
      >>> function = jax.jit(jnp.sin)
      >>> sine = Program(
      ...   name="sine", function=function, arguments=(x,), kept={}, rows=2
      ... )
      >>> "stablehlo.sine" in sine.lower("tpu").as_text()
      True
    """
    traced = self.function.trace(*self.arguments)
    if platform is None:
      return traced.lower()
    return traced.lower(lowering_platforms=(platform,))


def programs(run: Run, mesh: Mesh, *, steps: int) -> list[Program]:
  """Return training step, sampler and evaluation step of a run.

  Args:
    run: The run.
    mesh: The devices.
    steps: Training steps a dispatch.

  Returns:
    The three, in this order.
  """
  return [
    training_step(run, mesh, steps=steps),
    sampler(run, mesh),
    evaluation_step(run, mesh),
  ]


def training_step(run: Run, mesh: Mesh, *, steps: int) -> Program:
  """Return the training step as `jaxflow train` compiles it.

  Args:
    run: The run.
    mesh: The devices.
    steps: Steps a dispatch.

  Returns:
    The program; it holds no arrays.
  """
  state = run.template(mesh)
  batch = run.batch_shapes(mesh, steps=steps)
  kept = {
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
    arguments=(state, batch),
    kept=kept,
    steps=steps,
    rows=run.model.config.train.batch_size,
  )


def sampler(run: Run, mesh: Mesh) -> Program:
  """Return the sampler of fewest network calls, a whole batch of samples.

  `jaxflow sample` and `jaxflow evaluate` draw as many at a time if they are
  asked for no fewer.

  Args:
    run: The run.
    mesh: The devices.

  Returns:
    The program, of `sample.batch_size` samples.
  """
  draw, calls = _drawer(run, mesh)
  state = run.template(mesh)
  params = run.select(state, run.model.config.sample.ema, "sample.ema")
  rows, where = _rows(run, mesh)
  inputs = _sampler_inputs(run, rows, where)
  return Program(
    name=f"sampler, {calls} call{'s' if calls > 1 else ''}",
    function=jax.jit(draw, out_shardings=where),
    arguments=(params, *inputs),
    kept={"parameters": params, "batch": inputs},
    rows=rows,
    notes=_undivided(rows, mesh),
  )


def evaluation_step(
  run: Run,
  mesh: Mesh,
  *,
  features: Callable[[Array], Array] | None = None,
) -> Program:
  """Return the sampler followed by the moments of its samples' features.

  Args:
    run: The run.
    mesh: The devices.
    features: `samples [B, ...] -> [B, D]`; default: the samples as vectors, of
      large ones as many values as moments are kept of.

  Returns:
    The program, of `sample.batch_size` samples.
  """
  draw, _ = _drawer(run, mesh)
  state = run.template(mesh)
  params = run.select(state, run.model.config.sample.ema, "sample.ema")
  rows, where = _rows(run, mesh)
  inputs = _sampler_inputs(run, rows, where)

  def evaluate(params, *inputs):
    samples = (features or _values)(draw(params, *inputs))
    return batch_moments(samples, rows)

  return Program(
    name="evaluation step",
    function=jax.jit(evaluate, out_shardings=sharding.replicated(mesh)),
    arguments=(params, *inputs),
    kept={"parameters": params, "batch": inputs},
    rows=rows,
    notes=_undivided(rows, mesh) + (_cut(run) if features is None else ()),
  )


def _cut(run: Run) -> tuple[str, ...]:
  """Say that moments are of a part of a sample, which a run would refuse."""
  size = math.prod(run.model.shape)
  if size <= LARGEST:
    return ()
  return (
    f"moments of the first {LARGEST} of a sample's {size} numbers, in place of "
    "features: jaxflow evaluate refuses moments of more",
  )


def _values(samples: Array) -> Array:
  return samples.reshape(len(samples), -1)[:, :LARGEST]


def _drawer(run: Run, mesh: Mesh) -> tuple[Callable[..., Array], int]:
  """Return the sampler with the fewest calls, and their number."""
  try:
    return sharding.over(mesh, run.model.make_sampler(1, "nfe")), 1
  except UsageError:
    # A solver of two calls a step, or a sampler that has no single step.
    calls = run.model.config.sample.nfe
    sampler = run.model.make_sampler(calls, "sample.nfe")
    return sharding.over(mesh, sampler), calls


def _rows(run: Run, mesh: Mesh) -> tuple[int, NamedSharding]:
  """Return how many samples are drawn at a time, and where they lie.

  They are split where the mesh divides them, as `jaxflow sample` does it.
  """
  rows = run.model.config.sample.batch_size
  if rows % sharding.row_shards(mesh):
    return rows, sharding.replicated(mesh)
  return rows, sharding.row_sharding(mesh)


def _undivided(rows: int, mesh: Mesh) -> tuple[str, ...]:
  """Say that every device draws all samples."""
  shards = sharding.row_shards(mesh)
  if rows % shards == 0:
    return ()
  return (
    f"sample.batch_size={rows} is no multiple of {shards}: samples are not "
    "split over devices",
  )


def _sampler_inputs(
  run: Run, rows: int, where: NamedSharding
) -> tuple[PyTree, PyTree, PyTree]:
  """Return the shapes of noise, key and labels."""
  noise = jax.ShapeDtypeStruct(
    (rows, *run.model.shape), jnp.float32, sharding=where
  )
  key = jax.eval_shape(jax.random.key, 0)
  labels = None
  if run.model.num_classes:
    labels = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=where)
  return noise, key, labels
