"""Where a run starts: its resolved config, other runs, its first state."""

import pathlib

import jax

from jaxflow.config import Config
from jaxflow.config import resolve as resolve_config
from jaxflow.config.files import check_same_run, load_config
from jaxflow.errors import UsageError
from jaxflow.parallel import processes
from jaxflow.runs.initial_weights import check_same_network
from jaxflow.runs.inputs import Inputs
from jaxflow.runs.run import Run, load
from jaxflow.training.checkpoints import saved_steps
from jaxflow.training.state import TrainState
from jaxflow.types import PyTree

# Runs whose networks a run takes, by the config section that names them.
_SOURCES = ("teacher", "features")
# Those that a run which starts needs, and "init"; none where it resumes.
Others = dict[str, tuple[Run, TrainState]]

# Numbers of random streams beside that of the network's parameters.
_FEATURES, _DISCRIMINATOR = 1, 2


def resolve(
  config: Config,
  inputs: Inputs,
  workdir: pathlib.Path,
  mesh: jax.sharding.Mesh,
) -> tuple[Config, Others]:
  """Fill in what data and other runs decide; check against an earlier run.

  Args:
    config: The run's config.
    inputs: Its data.
    workdir: Its folder.
    mesh: The devices on which to put the networks of other runs.

  Returns:
    The resolved config, and the runs that a run which begins takes from.

  Raises:
    UsageError: If another run is not there, or the workdir holds another one.
  """
  saved = _earlier_config(workdir)
  resumed = saved if begun(workdir) else None
  others: Others = {}
  configs: dict[str, Config | None] = dict.fromkeys(_SOURCES)
  for name in _SOURCES:
    if resumed is not None:
      configs[name] = resumed.get(name, {}).get("config", None)
    elif config.get(name, {}).get("workdir", ""):
      folder = pathlib.Path(config[name].workdir)
      ema = config[name].ema
      field = f"{name}.workdir"
      others[name] = load(folder, field=field, mesh=mesh, ema=ema)
      configs[name] = others[name][0].model.config
  step = config.init.step
  if step is None and saved:
    step = saved.get("init", {}).get("step", None)
  if config.init.workdir and resumed is None:
    folder = pathlib.Path(config.init.workdir)
    others["init"] = load(
      folder, field="init.workdir", mesh=mesh, step=step, ema=config.init.ema
    )
    step = int(others["init"][1].step)
  config = resolve_config(
    config,
    shape=inputs.real.shape,
    num_classes=inputs.real.num_classes,
    pairs=inputs.pairs.digest if inputs.pairs else None,
    init_step=step,
    **configs,
  )
  if saved:
    check_same_run(saved, config, str(workdir))
  return config, others


def begun(workdir: pathlib.Path) -> bool:
  """Return whether a workdir holds a whole checkpoint."""
  return processes.of_main(bool(saved_steps(workdir / "checkpoints")))


def _earlier_config(workdir: pathlib.Path) -> Config | None:
  """Return the config of the run that a workdir holds, or None."""
  try:
    if (workdir / "config.json").exists():
      return load_config(workdir, field="--workdir")
    foreign = workdir.is_dir() and any(workdir.iterdir())
  except OSError as error:
    raise UsageError(
      f"--workdir={workdir} cannot be read ({error.strerror}): give another "
      "folder, or make it readable"
    ) from error
  if foreign:
    raise UsageError(
      f"--workdir={workdir} is not empty and holds no config.json: give a new "
      "folder"
    )
  return None


def frozen_parameters(
  run: Run, template: TrainState, others: Others
) -> dict[str, PyTree]:
  """Return the parameters that never change, by role.

  Args:
    run: The student's run.
    template: The shapes of its state.
    others: The runs that it takes networks from.

  Raises:
    UsageError: If a run has no such average, the student cannot start from its
      teacher, or a file is not what it should be.
  """
  config = run.model.config
  given = {
    name: others[name][0].select(
      others[name][1], config[name].ema, f"{name}.ema"
    )
    for name in _SOURCES
    if name in others
  }
  if "teacher" in given and _from_teacher(config):
    check_same_network(
      template.params,
      given["teacher"],
      (config, others["teacher"][0].model.config),
      f"teacher.workdir={config.teacher.workdir!r}",
      "set teacher.init_student=False",
    )
  key = jax.random.fold_in(jax.random.key(config.seed), _FEATURES)
  return run.roles.frozen(key, given)


def first_state(
  run: Run,
  template: TrainState,
  frozen: dict[str, PyTree],
  init_params: PyTree | None = None,
) -> TrainState:
  """Initialise from given weights, the teacher's, or freshly.

  Args:
    run: The run.
    template: The shapes of its state, with their shardings.
    frozen: The parameters that never change, by role.
    init_params: The parameters from which to start; default: the teacher's
      where the config says so, else fresh ones.
  """
  config = run.model.config
  if init_params is None and "teacher" in frozen and _from_teacher(config):
    init_params = frozen["teacher"]

  def fresh(key, frozen, params):
    if params is None:
      params = run.model.network.init(key)
    return run.init(params, frozen, jax.random.fold_in(key, _DISCRIMINATOR))

  shardings = jax.tree.map(lambda x: x.sharding, template)
  key = jax.random.key(config.seed)
  return jax.jit(fresh, out_shardings=shardings)(key, frozen, init_params)


def _from_teacher(config: Config) -> bool:
  return config.teacher.init_student and not config.init.workdir
