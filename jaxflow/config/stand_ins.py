"""Resolve a config although the runs that it names need not be there."""

import pathlib

from jaxflow.config.components import Config, method_of, methods
from jaxflow.config.files import load_config
from jaxflow.config.plans import sources
from jaxflow.config.schema import default_config, resolve, update
from jaxflow.errors import named
from jaxflow.methods import Method

# Options of a student's network that its teacher's does not have.
_STUDENT_ONLY = (
  *("second_time", "sees_time", "guidance_inputs"),
  *("heads", "head_depth", "further_depth"),
)


def resolve_alone(
  config: Config, *, shape: tuple[int, ...], num_classes: int
) -> tuple[Config, list[str]]:
  """Resolve a config; a run that is not there is taken to be like the student.

  Returns the resolved config, and a line for each run that was not there.
  """
  sources(config)  # Says what decides nothing.
  found: dict[str, Config] = {"teacher": None}
  notes = []
  seen = config.get("features", None)
  wanted = {
    "teacher": "teacher" in method_of(config).needs,
    "features": seen is not None and seen.network.name == "run",
  }
  for name, needed in wanted.items():
    if not needed or config[name].get("config", None) is not None:
      continue
    workdir = config[name].workdir
    if workdir and (pathlib.Path(workdir) / "config.json").is_file():
      with named(workdir=f"{name}.workdir"):
        found[name] = load_config(pathlib.Path(workdir))
      continue
    student = method_of(config) if name == "teacher" else None
    found[name] = _stand_in(config, shape, num_classes, student)
    notes.append(
      f"{name}.workdir={workdir!r} holds no run: its network is taken to be "
      f"the student's, trained with {found[name].method}"
    )
  config = resolve(config, shape=shape, num_classes=num_classes, **found)
  if "features" in found:
    with config.unlocked(), config.ignore_type():
      config.features.workdir = config.features.workdir or "assumed"
  return config, notes


def _stand_in(
  config: Config,
  shape: tuple[int, ...],
  num_classes: int,
  student: Method | None,
) -> Config:
  """Return the config of a run that could be the teacher of another.

  Without a `student` its network is a velocity.
  """
  role = None if student is None else student.role_of_teacher
  jumps = role is not None and role.jumps
  rows = {
    name: row
    for name, row in methods().items()
    if (row.teaches if student is None else row.can_teach(student))
    and not row.needs & {"teacher", "pairs"}
  }
  # Of first stages one with the student's flow map, whose path it shares.
  alike = [
    k for k, row in rows.items() if student and row.flow_map is student.flow_map
  ]
  method = [*(alike if jumps else ()), *rows][0]
  other = default_config(method, data=config.data.name, model=config.model.name)
  if jumps:
    shared = ("path", "flow_map") if alike else ("path",)
    update(other, {name: config[name].to_dict() for name in shared})
  for name, value in config.model.items():
    if name not in _STUDENT_ONLY:
      other.model[name] = value
  if num_classes and "label_dropout" in other.loss:
    # Its student may guide it.
    other.loss.label_dropout = 0.1
  return resolve(other, shape=shape, num_classes=num_classes, teacher=None)
