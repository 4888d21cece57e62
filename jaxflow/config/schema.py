"""Configs: every field there is.

The options of a loss, a flow map or a network are taken from their signatures:
the code is the schema. `jaxflow.plans.sections` says what other fields mean.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from jaxflow import options
from jaxflow.config import fields as config_fields
from jaxflow.config import registry
from jaxflow.config.components import (
  Config,
  complete,
  method_named,
  with_places,
)
from jaxflow.config.fields import COUPLING, OPTIMIZER, PAIRS, SHARE
from jaxflow.data import Scaling
from jaxflow.errors import UsageError
from jaxflow.methods import Method

# Sections of that kind.
OPTIMIZERS = ("optimizer", "discriminator.optimizer", "fake_score.optimizer")

# Options of any network that methods set.
INTERFACE = ("second_time", "heads", "guidance_inputs")


def default_config(method: str, *, data: str, model: str) -> Config:
  """Return the unlocked config of a method with every field set.

  Fields without a default are placeholders.

  Example:
    >>> config = default_config("mean_flow", data="ring", model="mlp")
    >>> config.loss.omega, config.times.name
    (1.0, 'sorted_pair')
  """
  row = method_named(method)
  maker = registry.maker_of("model", model, field="model")
  network = with_places(registry.default_options(maker))
  for name in ("num_classes", "cond_size", "data_shape"):
    network.pop(name, None)
  if "second_time" in options.parameters(maker):
    network["second_time"] = False
  loss = with_places(registry.default_options(row.loss))
  drawn = "sample_times" in options.parameters(row.loss)
  every = with_places(config_fields.EVERY)
  config = ConfigDict(
    {
      "method": method,
      "seed": every["seed"],
      "data": {**every["data"], "name": data},
      "path": {"name": "linear"},
      "model": {"name": model, **network},
      "parameterization": {"name": "raw"},
      # What learns in place of the network's parameters.
      "adapter": {"name": "none"},
      "loss": loss,
      "flow_map": {
        "name": registry.name_of_function("flow_map", row.flow_map),
        **with_places(registry.default_options(row.flow_map)),
      },
      "optimizer": every["optimizer"],
      "ema": {"sampling": {"name": "power", "width": 0.1}},
      "teacher": {
        "workdir": "",
        "guidance": 1.0,
        "ema": "sampling",
        "init_student": True,
        "config": config_dict.placeholder(dict),
      },
      "init": every["init"],
      "features": {
        "network": {"name": "none"},
        "workdir": "",
        "ema": "sampling",
        "config": config_dict.placeholder(dict),
      },
      "discriminator": {
        "network": {"name": "none"},
        "times": {"name": "loss" if drawn else "t_max"},
        "start": 0.0,
        "turns": "alternate",
        "ratio": 1,
        "loss": _own_options(row, "discriminator"),
        # As Kim et al. 2023 train theirs (arXiv:2310.02279).
        "optimizer": OPTIMIZER
        | {"name": "radam", "learning_rate": 2e-3, "b1": 0.5, "b2": 0.9},
      },
      "fake_score": {
        "times": {"name": "loss"},
        "turns": "alternate",
        # It must follow a generator that moves.
        "ratio": 4,
        "loss": _own_options(row, "fake_score"),
        "optimizer": every["optimizer"],
      },
      # Heads that see noised samples through the fake score or the teacher.
      "critic": {"network": {"name": "none"}, "sees": "fake_score"},
      "train": every["train"],
      "checkpoint": every["checkpoint"],
      "mesh": every["mesh"],
      "sample": every["sample"],
      "evaluation": every["evaluation"],
    }
  )
  others = {"teacher", "features", "discriminator", "fake_score", "critic"}
  for section in others - _roles(row.loss):
    del config[section]
  if "pairs" in row.needs:
    # A velocity can be trained on other rows too, a generator cannot.
    mixed = not options.marked(row.loss, options.InPairs)
    pairs = PAIRS | (SHARE if mixed else {})
    update(config, {"data": with_places(pairs)})
  else:
    update(config, {"data": COUPLING})
  update(config, row.config)
  return config


def _own_options(row: Method, section: str) -> dict[str, Any]:
  """Return the options of a companion's loss that the student's has not."""
  if section not in row.companions:
    return {}
  shared = options.parameters(row.loss)
  own = registry.default_options(row.companions[section])
  return with_places({k: v for k, v in own.items() if k not in shared})


def _roles(loss: Callable) -> set[str]:
  """Return the sections of the other networks that a loss takes."""
  marks = options.marked(loss, options.Role).values()
  sections = {mark.section for mark in marks}
  # Distances and discriminators may see samples through features.
  kinds = {"distance", "perceptual"} & {*registry.kinds_of(loss).values()}
  features = kinds or "discriminator" in sections
  return sections | {"features"} if features else sections


def update(config: Config, fields: Mapping[str, Any]) -> None:
  """Set fields of a config, in place.

  A mapping sets the fields inside; one that names a component replaces the
  component as a whole, because the options of the old one go with it. Data and
  optimizers have the same fields whatever their name.

  Example:
    >>> config = default_config("mean_flow", data="ring", model="mlp")
    >>> update(config, {"times": {"law": {"name": "uniform"}}})
    >>> config.times.law.to_dict()
    {'name': 'uniform'}
  """
  for name, value in fields.items():
    fixed = name in ("data", "optimizer")
    inside = isinstance(value, Mapping) and isinstance(
      config.get(name, None), ConfigDict
    )
    if inside and (fixed or "name" not in value):
      update(config[name], value)
    else:
      config[name] = value


def changed(config: Config, fields: Mapping[str, Any]) -> Config:
  """Return a locked copy of a config with the fields that `update` takes."""
  copy = config.copy_and_resolve_references()
  with copy.unlocked():
    update(copy, fields)
  return copy.lock()


def given(config: Config, *, data: bool, network: bool) -> Config:
  """Return a locked copy that says what the caller passes."""
  fields: dict[str, Any] = {}
  if data:
    fields["data"] = {"name": "given"}
  if network:
    asked = {k: v for k, v in config.model.items() if k in INTERFACE}
    fields["model"] = {"name": "given", **asked}
  return changed(config, fields)


def resolve(
  config: Config,
  *,
  shape: tuple[int, ...],
  num_classes: int,
  class_names: tuple[str, ...] = (),
  scaling: Scaling | None = None,
  conditions: Scaling | None = None,
  teacher: Config | None,
  features: Config | None = None,
  pairs: str | None = None,
  init_step: int | None = None,
  schedule_steps: int | None = None,
) -> Config:
  """Return the config, locked, with all that data and other runs decide."""
  config = ConfigDict(config.to_dict())
  complete(config)
  with config.unlocked(), config.ignore_type():
    for field, found in (
      ("data.shape", tuple(shape)),
      ("data.num_classes", num_classes),
      ("data.class_names", class_names or None),
      ("data.normalise", scaling and scaling.kind),
      ("data.offset", scaling and scaling.offset),
      ("data.scale", scaling and scaling.scale),
      ("data.range", scaling and scaling.range),
      ("data.dtype", scaling and scaling.dtype),
      ("data.cond_offset", conditions and conditions.offset),
      ("data.cond_scale", conditions and conditions.scale),
      ("data.pairs_digest", pairs),
      ("teacher.config", teacher and teacher.to_dict()),
      ("features.config", features and features.to_dict()),
    ):
      if found is not None:
        _set_found(config, field, found)
    _check_class_names(config)
    config.init.step = init_step
    config.train.schedule_steps = (
      config.train.schedule_steps or schedule_steps or config.train.steps
    )
  return config.lock()


def _check_class_names(config: Config) -> None:
  """Raise UsageError unless each class has a name, or none has."""
  names, number = config.data.class_names, config.data.num_classes
  if names is not None and not len({*names}) == len(names) == number:
    raise UsageError(
      f"data.class_names={tuple(names)}: this run has {number} classes; give "
      f"{number} different names, or None"
    )


def _set_found(config: Config, field: str, found: Any) -> None:
  """Set a field that data or another run decide; refuse another value."""
  section, _, name = field.partition(".")
  given, inside = config.to_dict()[section].get(name), isinstance(found, dict)
  if given not in (None, found):
    other = f": {section}.workdir has another"
    told = other if inside else f"={given!r}: this run sees {found!r}"
    raise UsageError(f"{field}{told}; give that, or None")
  config[section][name] = ConfigDict(found) if inside else found
