"""Where a run starts: its resolved config, other runs, its first state."""

import pathlib
from typing import Any

import jax

from jaxflow import config as config_lib
from jaxflow.data import class_names, conditions_of, scaling_of
from jaxflow.errors import UsageError, named
from jaxflow.parallel import processes
from jaxflow.plans import Plan, SourcePlan
from jaxflow.runs.initial_weights import Beginning
from jaxflow.runs.inputs import Inputs
from jaxflow.runs.restoring import load
from jaxflow.runs.run import Run
from jaxflow.training.checkpoints import saved_steps
from jaxflow.training.state import TrainState
from jaxflow.types import PyTree

# Runs whose networks are stored with a run, by their role.
_STORED = ("teacher", "features")
# The runs that a new run takes networks from, by role; none on resumption.
Others = dict[str, tuple[Run, TrainState]]

# Numbers of random streams beside that of the network's parameters.
_FEATURES, _COMPANIONS = 1, 2


def resolve(
  config: config_lib.Config,
  inputs: Inputs,
  workdir: pathlib.Path | None,
  mesh: jax.sharding.Mesh,
) -> tuple[config_lib.Config, Others, list[str]]:
  """Fill in what data and other runs decide; check an earlier run.

  The lines are about schedules that a resumed run changes.
  """
  # A run that has no checkpoint yet may still become another one.
  earlier = None if workdir is None else _earlier_config(workdir)
  resumed = earlier if begun(workdir) else None
  sources = config_lib.sources(config)
  others: Others = {}
  configs: dict[str, Any] = dict.fromkeys(_STORED)
  for name in _STORED:
    source = sources[name]
    if resumed is not None:
      configs[name] = config_lib.embedded(resumed, name)
    elif source.workdir:
      others[name] = _load(name, source, mesh)
      configs[name] = others[name][0].plan.config
  init = sources["init"]
  step = init.step
  if step is None and resumed:
    step = config_lib.sources(resumed)["init"].step
  if init.workdir and resumed is None:
    others["init"] = _load("init", init, mesh, step)
    step = int(others["init"][1].step)
  config = config_lib.resolve(
    config,
    shape=inputs.real.shape,
    num_classes=inputs.real.num_classes,
    class_names=class_names(inputs.real),
    scaling=scaling_of(inputs.real),
    conditions=conditions_of(inputs.real),
    pairs=inputs.pairs.digest if inputs.pairs else None,
    init_step=step,
    schedule_steps=config_lib.schedule_steps(resumed) if resumed else None,
    **configs,
  )
  if not resumed:
    return config, others, []
  config_lib.check_same_run(resumed, config, str(workdir))
  return config, others, config_lib.new_rhythm(resumed, config)


def _load(
  name: str,
  source: SourcePlan,
  mesh: jax.sharding.Mesh,
  step: int | None = None,
) -> tuple[Run, TrainState]:
  """Restore an average of another run, that a section of the config names."""
  with named(**{x: f"{name}.{x}" for x in ("workdir", "step", "ema")}):
    return load(
      pathlib.Path(source.workdir),
      mesh=mesh,
      step=step,
      ema=source.ema,
      guidance=source.guidance,
    )


def begun(workdir: pathlib.Path | None) -> bool:
  """Return whether a workdir holds a whole checkpoint."""
  if workdir is None:
    return False
  return processes.of_main(bool(saved_steps(workdir / "checkpoints")))


def _earlier_config(workdir: pathlib.Path) -> config_lib.Config | None:
  """Return the config of the run that a workdir holds, or None."""
  try:
    if (workdir / "config.json").exists():
      return config_lib.load_config(workdir)
    # Drafts of a process that was killed have names with a dot in front.
    foreign = workdir.is_dir() and any(
      not path.name.startswith(".") for path in workdir.iterdir()
    )
  except OSError as error:
    raise UsageError(
      f"workdir={workdir} cannot be read ({error.strerror}): give another "
      "folder, or make it readable"
    ) from error
  if foreign:
    raise UsageError(
      f"workdir={workdir} is not empty and holds no config.json: give a new "
      "folder"
    )
  return None


def frozen_parameters(plan: Plan, others: Others) -> dict[str, PyTree]:
  """Return the parameters that never change, by role."""
  sources = {"teacher": plan.teacher, "features": plan.features}
  given = {
    name: others[name][0].select(others[name][1], sources[name].ema)
    for name in _STORED
    if name in others
  }
  key = jax.random.fold_in(jax.random.key(plan.seed), _FEATURES)
  return plan.roles.frozen(key, given)


def first_state(
  run: Run,
  template: TrainState,
  frozen: dict[str, PyTree],
  begins: Beginning | None = None,
) -> TrainState:
  """Initialise from the weights of another run, or freshly."""
  begins = begins or Beginning()
  given = frozen["teacher"] if begins.teacher else begins.params

  def fresh(key, frozen, given):
    params = given
    if given is None or begins.fit is not None:
      params = run.model.network.init(key)
    if begins.fit is not None:
      params = begins.fit(given, params)
    return run.init(params, frozen, jax.random.fold_in(key, _COMPANIONS))

  shardings = jax.tree.map(lambda x: x.sharding, template)
  key = jax.random.key(run.plan.seed)
  return jax.jit(fresh, out_shardings=shardings)(key, frozen, given)
