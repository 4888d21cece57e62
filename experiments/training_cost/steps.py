"""Training steps as XLA compiles them: value and gradient of a loss."""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.training_cost.variants import (
  network_options,
  roles_of,
  variants,
)
from jaxflow import models

# FLOPs and memory are settled before code is generated: what is only counted
# needs no fast code.
ONLY_COUNTED = {
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
}


class Counts(NamedTuple):
  """What XLA says of a compiled step.

  Attributes:
    flops: Its FLOPs.
    temporary_bytes: Its memory beyond arguments and results.
  """

  flops: float
  temporary_bytes: int


def counts(step: jax.stages.Compiled) -> Counts:
  """Return the counts of a compiled step."""
  return Counts(
    step.cost_analysis()["flops"], step.memory_analysis().temp_size_in_bytes
  )


def make_arguments(
  config: dict, *, scan_layers: bool = False, **options
) -> tuple[Callable, tuple]:
  """Make the network and what a step takes.

  Args:
    config: Size of batch and network.
    scan_layers: Whether layers are a loop, of which XLA counts one round.
    **options: More options of the network.

  Returns:
    The network's `apply`, and `(params, frozen, key, batch)` with the
    parameters of the frozen target, teacher and fake score.
  """
  config = dict(config)
  size = config.pop("batch_size")
  network = models.dit(
    **config, **options, second_time=True, scan_layers=scan_layers
  )
  init = jax.jit(network.init)
  params, target, teacher = map(init, jax.random.split(jax.random.key(0), 3))
  data_key, key = jax.random.split(jax.random.key(1))
  batch = {
    "data": jax.random.normal(data_key, (size, *config["data_shape"])),
    "cond": jnp.arange(size) % config["num_classes"],
  }
  frozen = {"target_fn": target, "teacher": teacher, "fake_score": target}
  return network.apply, (params, frozen, key, batch)


def compile_step(
  loss: Callable,
  apply_fn: Callable,
  arguments: tuple,
  *,
  roles: Sequence[str] = (),
  options: dict | None = None,
) -> jax.stages.Compiled:
  """Compile value and gradient of a loss.

  Args:
    loss: One of `variants`.
    apply_fn: The network.
    arguments: As `make_arguments` makes them.
    roles: Names of the frozen networks that the loss takes.
    options: Options of the compiler.

  Returns:
    The compiled function of `arguments`.
  """

  def mean_loss(params, frozen, key, batch):
    others = {k: functools.partial(apply_fn, frozen[k]) for k in roles}
    model_fn = functools.partial(apply_fn, params)
    return loss(model_fn, key, batch, **others)[0].mean()

  lowered = jax.jit(jax.value_and_grad(mean_loss)).lower(*arguments)
  return lowered.compile(compiler_options=options)


def compile_all(
  config: dict, names: Sequence[str], **layers: bool
) -> tuple[dict[str, jax.stages.Compiled], dict[str, tuple]]:
  """Compile the steps of variants.

  Args:
    config: Size of batch and network.
    names: Keys of `variants`.
    **layers: `remat`, whether the backward pass computes every block anew, and
      `scan_layers`.

  Returns:
    The compiled steps, and their arguments, by name.
  """
  made = [*_compiled(config, names, None, **layers)]
  steps = {name: step for name, step, _ in made}
  return steps, {name: arguments for name, _, arguments in made}


def count_all(
  config: dict, names: Sequence[str], **layers: bool
) -> dict[str, Counts]:
  """Return the counts of the steps of variants, of which none is kept.

  Linux gives a process 65,530 regions of memory, fewer than all would take.
  The arguments are those of `compile_all`.
  """
  made = _compiled(config, names, ONLY_COUNTED, **layers)
  return {name: counts(step) for name, step, _ in made}


def _compiled(
  config: dict, names: Sequence[str], options: dict | None, **layers: bool
) -> Iterator[tuple[str, jax.stages.Compiled, tuple]]:
  """Yield name, compiled step and arguments of variants."""
  plain = make_arguments(config, **layers)
  table = variants(config["num_classes"])
  for name in names:
    more = network_options(name, config["depth"])
    apply_fn, arguments = (
      make_arguments(config, **layers, **more) if more else plain
    )
    step = compile_step(
      table[name],
      apply_fn,
      arguments,
      roles=roles_of(name),
      options=options,
    )
    yield name, step, arguments


def memory_with_remat(config: dict, names: Sequence[str]) -> dict[str, float]:
  """Return temporary memory with remat over that without, of scanned layers.

  Of unrolled layers the compiler orders all blocks itself, and on CPUs it
  computes them anew long before they are needed.

  Args:
    config: Size of batch and network.
    names: Keys of `variants`.
  """
  plain, spared = (
    count_all(config, names, remat=remat, scan_layers=True)
    for remat in (False, True)
  )
  return {
    name: spared[name].temporary_bytes / plain[name].temporary_bytes
    for name in names
  }


def time_ratios(
  steps: Mapping[str, jax.stages.Compiled],
  arguments: Mapping[str, tuple],
  rounds: int,
  *,
  baseline: str,
) -> dict[str, list[float]]:
  """Time the steps in turn and compare within a round.

  Args:
    steps: Compiled steps by name, the baseline among them.
    arguments: What they take, by name.
    rounds: How often each is timed, after one run to warm up.
    baseline: A key of `steps`.

  Returns:
    The time relative to the baseline's, one number a round.
  """

  def seconds(name):
    start = time.perf_counter()
    jax.block_until_ready(steps[name](*arguments[name]))
    return time.perf_counter() - start

  laps = [{name: seconds(name) for name in steps} for _ in range(rounds + 1)]
  return {
    name: [lap[name] / lap[baseline] for lap in laps[1:]] for name in steps
  }
