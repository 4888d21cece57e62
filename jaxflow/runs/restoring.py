"""Read a run from its workdir."""

import contextlib
import logging
import operator
import pathlib
from collections.abc import Collection
from typing import Any, cast

import jax

from jaxflow import config as config_lib
from jaxflow.errors import UsageError
from jaxflow.parallel import memory
from jaxflow.runs import weight_files, widths
from jaxflow.runs.run import Run
from jaxflow.training.checkpoints import Checkpoints
from jaxflow.training.state import TrainState

_LOGGER = logging.getLogger(__name__)


def load(
  workdir: pathlib.Path,
  *,
  mesh: jax.sharding.Mesh,
  step: int | str | None = None,
  ema: str | None = None,
  guidance: float = 1.0,
) -> tuple[Run, TrainState]:
  """Restore a run from its workdir; arguments and errors as `restore`."""
  run = Run(config_lib.load_plan(workdir))
  state = restore(
    run, workdir, mesh=mesh, step=step, ema=ema, guidance=guidance
  )
  return run, state


def restore(
  run: Run,
  workdir: pathlib.Path,
  *,
  mesh: jax.sharding.Mesh,
  step: int | str | None = None,
  ema: str | None = None,
  roles: Collection[str] = (),
  guidance: float = 1.0,
) -> TrainState:
  """Restore the state of a run from its workdir.

  Args:
    run: The run.
    workdir: A folder in which it was trained.
    mesh: The devices on which to put it.
    step: The checkpoint; None for the latest, "best" for the best by the
      metric of `evaluation.during.best`.
    ema: The only average to read, or "online" for the parameters; "width=W"
      makes one of that width of all checkpoints up to the step. None reads the
      whole state.
    roles: Frozen networks that are read beside that average, "teacher" for
      one; a run that has none of that role passes over it.
    guidance: The scale at which the network will be guided.
  """
  if ema is None:
    template = run.template(mesh)
  else:
    template = run.sampling_template(mesh, ema, roles)
  memory.check(template, "the networks of the run")
  if (workdir / weight_files.WEIGHTS).is_file():
    return weight_files.read_state(workdir, template, step=step)
  number = None
  if step not in (None, "best"):
    try:
      number = operator.index(cast(Any, step))
    except TypeError as error:
      raise UsageError(
        f"step={step!r}: give a whole number, 'best' or None"
      ) from error
  folder = workdir / ("best" if step == "best" else "checkpoints")
  if step == "best" and not folder.is_dir():
    raise UsageError(
      f"step='best': {str(workdir)!r} keeps no best checkpoint; train with "
      "evaluation.during.best"
    )
  of_width = ema is not None and ema not in ("online", *run.plan.emas)
  if of_width:
    template = widths.stored_template(template, run)
  restored: Any = None
  if folder.is_dir():
    with contextlib.closing(Checkpoints(folder, read_only=True)) as saved:
      restored = saved.restore(template, number, partial=ema is not None)
  if restored is None:
    raise UsageError(
      f"workdir={str(workdir)!r} holds no checkpoint yet: train it first"
    )
  state = restored[0]
  if ema is not None:
    if of_width:
      state = widths.make(ema, run, workdir / "checkpoints", template, state)
    state = run.merged(state, ema)
    for line in run.remarks(ema, int(state.updates), guidance):
      _LOGGER.warning(line)
  return state
