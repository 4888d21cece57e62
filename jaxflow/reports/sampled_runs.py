"""A run and its teacher, each with a way to sample, to be set side by side."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Literal, Self

import jax

from jaxflow import solvers
from jaxflow.config import Config, update
from jaxflow.config.files import load_config
from jaxflow.errors import UsageError
from jaxflow.runs.role_checks import check_equal
from jaxflow.runs.run import Run, load
from jaxflow.training.state import TrainState
from jaxflow.types import PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contestant:
  """A trained network and how it is sampled.

  Attributes:
    role: "run", or "teacher".
    run: What it is; its config says how it is sampled.
    state: Its parameters.
    field: The flag that says how many network calls it makes.
  """

  role: Literal["run", "teacher"]
  run: Run
  state: TrainState
  field: str

  @property
  def params(self) -> PyTree:
    """The parameters that are sampled."""
    name = self.run.model.config.sample.ema
    return self.run.select(self.state, name, "sample.ema")

  @property
  def solver(self) -> str:
    """What applies the network: a sampler, a solver or a flow map."""
    return _solver(self.run.model.config)

  def solved(self) -> dict[str, Self]:
    """Return it with every solver that its network knows, by name.

    Its own is the first; a solver may still not fit a number of calls.
    """
    config = self.run.model.config
    ways: dict[str, Mapping[str, Any]] = {}
    if "solver" in config.flow_map:
      for name in solvers.EVALUATIONS:
        ways[name] = {
          "flow_map": {"solver": {"name": name}},
          "sample": {"sampler": {"name": "default"}},
        }
      ways["dpm_solver"] = {"sample": {"sampler": {"name": "dpm_solver"}}}
    made = {self.solver: self}
    for name, fields in ways.items():
      if name not in made:
        run = Run.of(_changed(config, fields))
        made[name] = dataclasses.replace(self, run=run)
    return made

  def allows(self, nfe: int) -> bool:
    """Return whether its sampler can make so many network calls."""
    try:
      self.run.model.make_sampler(nfe, self.field)
    except UsageError:
      return False
    return True


def teacher_of(student: Contestant) -> Contestant | None:
  """Return the teacher that a student's checkpoint holds, None without one.

  It is guided as the student saw it.

  Args:
    student: A run that was loaded with the role "teacher".
  """
  config = student.run.model.config
  if "teacher" not in student.state.frozen:
    return None
  fields = {"sample": {"ema": "online", "guidance": config.teacher.guidance}}
  state = dataclasses.replace(
    student.state, params=student.state.frozen["teacher"], ema={}, frozen={}
  )
  return Contestant(
    role="teacher",
    run=Run.of(_changed(config.teacher.config, fields)),
    state=state,
    field="--teacher_nfe",
  )


def other_run(
  workdir: pathlib.Path, beside: Config, mesh: jax.sharding.Mesh
) -> Contestant:
  """Return the run of another workdir, to be sampled as its config says.

  Args:
    workdir: Its folder, of the flag --teacher.
    beside: The config of the run beside which it stands.
    mesh: The devices.

  Raises:
    UsageError: If the folder holds no run, or one of other samples.
  """
  config = load_config(workdir, field="--teacher")
  for name in ("shape", "num_classes"):
    check_equal(
      f"--teacher={workdir}",
      f"data.{name}",
      _plain(beside.data[name]),
      _plain(config.data[name]),
    )
  run, state = load(
    workdir, field="--teacher", mesh=mesh, ema=config.sample.ema
  )
  return Contestant(role="teacher", run=run, state=state, field="--teacher_nfe")


def _plain(value: Any) -> Any:
  """Return a value as two configs, of which one was read as JSON, agree."""
  return tuple(value) if isinstance(value, list | tuple) else value


def _solver(config: Config) -> str:
  sampler = config.sample.sampler.name
  if sampler != "default":
    return sampler
  solver = config.flow_map.get("solver", None)
  return config.flow_map.name if solver is None else solver["name"]


def _changed(config: Config, fields: Mapping[str, Any]) -> Config:
  """Return a config with other values in some fields."""
  changed = config.copy_and_resolve_references()
  with changed.unlocked(), changed.ignore_type():
    update(changed, fields)
  return changed
