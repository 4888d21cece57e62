"""The programs of a run from shapes: training, sampling, evaluation."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

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
  """

  name: str
  function: Any
  arguments: tuple[PyTree, ...]
  kept: dict[str, PyTree]
  steps: int = 1
  rows: int

  def lower(self, platform: str | None) -> jax.stages.Lowered:
    """Lower it for a platform, by default that of the host."""
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
  """Return the sampler of fewest network calls, a training batch at a time."""
  draw, calls = _drawer(run, mesh)
  state = run.template(mesh)
  params = run.select(state, run.model.config.sample.ema, "sample.ema")
  inputs = _sampler_inputs(run, mesh)
  return Program(
    name=f"sampler, {calls} call{'s' if calls > 1 else ''}",
    function=jax.jit(draw, out_shardings=sharding.row_sharding(mesh)),
    arguments=(params, *inputs),
    kept={"parameters": params, "batch": inputs},
    rows=run.model.config.train.batch_size,
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
  """
  draw, _ = _drawer(run, mesh)
  state = run.template(mesh)
  params = run.select(state, run.model.config.sample.ema, "sample.ema")
  inputs = _sampler_inputs(run, mesh)
  rows = run.model.config.train.batch_size

  def evaluate(params, *inputs):
    samples = (features or _values)(draw(params, *inputs))
    return batch_moments(samples, rows)

  return Program(
    name="evaluation step",
    function=jax.jit(evaluate, out_shardings=sharding.replicated(mesh)),
    arguments=(params, *inputs),
    kept={"parameters": params, "batch": inputs},
    rows=rows,
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


def _sampler_inputs(run: Run, mesh: Mesh) -> tuple[PyTree, PyTree, PyTree]:
  """Return the shapes of noise, key and labels."""
  rows, where = run.model.config.train.batch_size, sharding.row_sharding(mesh)
  noise = jax.ShapeDtypeStruct(
    (rows, *run.model.shape), jnp.float32, sharding=where
  )
  key = jax.eval_shape(jax.random.key, 0)
  labels = None
  if run.model.num_classes:
    labels = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=where)
  return noise, key, labels
