"""Resolve a config although the runs that it names need not be there."""

import pathlib

from jaxflow.config.components import Config, method_of, methods
from jaxflow.config.files import load_config
from jaxflow.config.plans import sources
from jaxflow.config.schema import default_config, resolve
from jaxflow.errors import named

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
    found[name] = _stand_in(config, shape, num_classes)
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
  config: Config, shape: tuple[int, ...], num_classes: int
) -> Config:
  """Return the config of a run that could be the teacher of another."""
  method = next(k for k, row in methods().items() if row.teaches)
  other = default_config(method, data=config.data.name, model=config.model.name)
  for name, value in config.model.items():
    if name not in _STUDENT_ONLY:
      other.model[name] = value
  if num_classes:
    # Its student may guide it.
    other.loss.label_dropout = 0.1
  return resolve(other, shape=shape, num_classes=num_classes, teacher=None)
