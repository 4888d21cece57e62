"""The first and the last lines of training."""

import pathlib
import shlex
from collections.abc import Callable, Mapping
from typing import Any

import jax

from jaxflow.parallel import processes
from jaxflow.plans import Plan
from jaxflow.runs.inputs import Inputs
from jaxflow.training.layers import matching
from jaxflow.training.state import BASE, TrainState
from jaxflow.types import PyTree


def first_line(
  plan: Plan,
  state: TrainState,
  inputs: Inputs,
  mesh: jax.sharding.Mesh,
  chunk: int,
) -> str:
  """Return a line on network, data, devices and first step."""
  learns, only = state.params, plan.train.only
  if only:
    learns = jax.tree.map(
      lambda learns, x: x if learns else (),
      *(matching(state.params, only), state.params),
    )
  network = state.frozen.get(BASE, state.params)
  count = f"{_size(network):,} parameters"
  if learns is not network:
    count += f" ({_size(learns):,} learn)"
  begin = int(state.step)
  return (
    f"{plan.model.name} on {plan.data.name}: {count}, {inputs}, "
    f"{_machine(mesh)}, {chunk} steps per dispatch, "
    f"{'resumed at' if begin else 'from'} step {begin}"
  )


def schedule_note(plan: Plan, rate: Callable[[int], Any]) -> list[str]:
  """Return a line if training is longer than its schedules."""
  steps, length = plan.train.steps, plan.train.schedule_steps
  if steps <= length:
    return []
  return [
    f"train.steps={steps} is past train.schedule_steps={length}: schedules and "
    f"curricula then hold their last values (learning rate "
    f"{float(rate(length)):.3g}); --config.train.schedule_steps={steps} "
    "stretches them"
  ]


def last_line(
  workdir: pathlib.Path | None,
  step: int,
  scalars: Mapping[str, float],
  *,
  finished: bool,
  drawn: bool = True,
) -> str:
  """Return a line on the run's folder and the next command."""
  if not finished and workdir is None:
    return f"interrupted at step {step}"
  if not finished:
    return (
      f"interrupted: saved step {step} in {workdir}; the same command goes on "
      "from there"
    )
  place = "" if workdir is None else f"{workdir} at "
  loss = f" (last loss {scalars['loss']:.4g})" if "loss" in scalars else ""
  return f"done: {place}step {step:,}{loss}{next_command(workdir, drawn)}"


def next_command(workdir: pathlib.Path | None, drawn: bool = True) -> str:
  """Return the command that draws samples of a run, after a full stop.

  The samples become a picture if they can be `drawn`.

  Example:
    >>> next_command(pathlib.Path("runs/x"))
    '. Next: jaxflow sample --workdir=runs/x --out=samples.png'
  """
  if workdir is None:
    return ""
  folder = shlex.quote(str(workdir))
  file = "samples.png" if drawn else "samples.npz"
  return f". Next: jaxflow sample --workdir={folder} --out={file}"


def _size(params: PyTree) -> int:
  return sum(x.size for x in jax.tree.leaves(params))


def _machine(mesh: jax.sharding.Mesh) -> str:
  """Return the devices of a run, `8 device(s)`, and their arrangement."""
  text = f"{mesh.size} device(s)"
  if mesh.size < jax.device_count():
    text = f"{mesh.size} of {jax.device_count()} device(s)"
  if processes.count() > 1:
    text += f" of {processes.count()} processes"
  if mesh.size > mesh.shape["data"]:
    text += f" ({', '.join(f'{k} {v}' for k, v in mesh.shape.items())})"
  return text
