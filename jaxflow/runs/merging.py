"""A run whose adapter is merged with the weights that it changes."""

import pathlib
from collections.abc import Callable

from jaxflow import config as config_lib
from jaxflow.errors import UsageError
from jaxflow.parallel import sharding
from jaxflow.runs.importing import check_new, write_run
from jaxflow.runs.initial_weights import size
from jaxflow.runs.restoring import load
from jaxflow.runs.run import Run
from jaxflow.training.state import BASE


def merge_run(
  workdir: pathlib.Path,
  out: pathlib.Path,
  *,
  step: int | str | None = None,
  log: Callable[[str], None] = print,
) -> Run:
  """Write a run with an adapter as one without; return that.

  Its parameters and averages are the merged ones. It is at step 0, with a fresh
  optimizer, like an imported run.
  """
  check_new(out)
  run, state = load(workdir, mesh=sharding.make_mesh(), step=step)
  if run.plan.adapter is None:
    raise UsageError(
      f"workdir={str(workdir)!r} has no adapter: its weights are whole already"
    )
  config = config_lib.changed(run.plan.config, {"adapter": {"name": "none"}})
  merged = Run(config_lib.make_plan(config))
  params = run.select(state, "online")
  averages = {name: run.select(state, name) for name in run.plan.emas}
  frozen = {k: v for k, v in state.frozen.items() if k != BASE}
  write_run(out, merged, params, averages, frozen)
  log(f"{out}: {size(params):,} parameters of {workdir} at step {state.step}")
  return merged
