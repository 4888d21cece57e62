"""Configs: every field there is.

The options of a loss, a flow map or a network are taken from their signatures:
the code is the schema. `jaxflow.plans.sections` says what other fields mean.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from jaxflow import options
from jaxflow.config import registry
from jaxflow.config.components import (
  Config,
  complete,
  method_named,
  with_places,
)
from jaxflow.data import Scaling
from jaxflow.errors import UsageError
from jaxflow.methods import Method

_OPTIMIZER = {
  "name": "adam",
  "learning_rate": 1e-4,
  "schedule": "constant",
  "warmup_steps": 0,
  "b1": 0.9,
  "b2": 0.999,
  "eps": 1e-8,
  "weight_decay": 0.0,
  "clip_norm": 0.0,
}

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
  config = ConfigDict(
    {
      "method": method,
      "seed": 0,
      "data": {
        "name": data,
        "raw_dir": config_dict.placeholder(str),
        "data_dir": config_dict.placeholder(str),
        "stored_dir": config_dict.placeholder(str),  # Of a config.json.
        # Of pictures, as `data.load` describes these.
        "dir": config_dict.placeholder(str),
        "hub": config_dict.placeholder(str),
        "config": config_dict.placeholder(str),
        "image": config_dict.placeholder(str),
        "file": config_dict.placeholder(str),
        "size": config_dict.placeholder(int),
        "channels": config_dict.placeholder(int),
        "background": (255, 255, 255),
        "crop": "centre",
        # "grouped": rows of a class stand together, as many as the loss takes.
        "order": "shuffled",
        "label": config_dict.placeholder(str),
        "split": {
          "train": config_dict.placeholder(str),
          "test": config_dict.placeholder(str),
        },
        "test_share": config_dict.placeholder(float),
        "normalise": config_dict.placeholder(str),
        "max_broken": 0,
        "ram_gib": 4.0,
        "threads": 0,
        "download": False,
        # Mirrors half of the real images of every batch.
        "flip": False,
        "conditional": True,
        "shape": config_dict.placeholder(tuple),
        "num_classes": config_dict.placeholder(int),
        "class_names": config_dict.placeholder(tuple),
        # Of arrays, as `data.Scaling` describes these.
        "offset": config_dict.placeholder(tuple),
        "scale": config_dict.placeholder(tuple),
        "range": config_dict.placeholder(tuple),
        "dtype": config_dict.placeholder(str),
        # Of labels that are numbers.
        "cond_offset": config_dict.placeholder(tuple),
        "cond_scale": config_dict.placeholder(tuple),
      },
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
      "optimizer": _OPTIMIZER,
      "ema": {"sampling": {"name": "power", "width": 0.1}},
      "teacher": {
        "workdir": "",
        "guidance": 1.0,
        "ema": "sampling",
        "init_student": True,
        "config": config_dict.placeholder(dict),
      },
      "init": {
        "workdir": "",
        "ema": "sampling",
        "step": config_dict.placeholder(int),
      },
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
        "optimizer": _OPTIMIZER
        | {"name": "radam", "learning_rate": 2e-3, "b1": 0.5, "b2": 0.9},
      },
      "fake_score": {
        "times": {"name": "loss"},
        "turns": "alternate",
        # It must follow a generator that moves.
        "ratio": 4,
        "loss": _own_options(row, "fake_score"),
        "optimizer": _OPTIMIZER,
      },
      # Heads that see noised samples through the fake score or the teacher.
      "critic": {"network": {"name": "none"}, "sees": "fake_score"},
      "train": {
        "steps": 10_000,
        # 0: the steps with which the run begins.
        "schedule_steps": 0,
        "batch_size": 128,
        "accumulate": 1,
        "steps_per_dispatch": 25,
        "log_every": 100,
        "sample_every": 0,
        # The parameters that learn, by a regular expression of their paths.
        "only": "",
        "max_skipped": 100,
      },
      "checkpoint": {"every": 1000, "keep": 3, "keep_every": 0},
      "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
      "sample": {
        "nfe": 1,
        "batch_size": 2048,
        "guidance": 1.0,
        "guidance_start": config_dict.placeholder(float),
        "guidance_end": config_dict.placeholder(float),
        "ema": "sampling",
        "grid": {"name": "uniform"},
        "sampler": {"name": "default"},
      },
      "evaluation": {
        "nfe": (1, 2, 4),
        # Generated samples, and of how many pairs are compared.
        "num": 2000,
        "kept": 10_000,
        "batch_size": 256,
        # The split that samples are compared with, or a file of its statistics.
        "split": "test",
        "reference": "",
        # Names with commas between; all that apply where it is empty.
        "metrics": "",
        # Of the data's likelihood and of trajectories; num 0: not computed.
        "flow": {"num": 256, "steps": 32, "probes": 1, "levels": 0},
        # While training: every so many steps, 0: never; at most this share of
        # the time; the checkpoint that is best by a metric is kept.
        "during": {
          "every": 0,
          "num": 1000,
          "nfe": (1,),
          "metrics": "",
          "share": 0.1,
          "best": "",
        },
        # Sees images for distances of their features.
        "network": {"name": "none"},
      },
    }
  )
  others = {"teacher", "features", "discriminator", "fake_score", "critic"}
  for section in others - _roles(row.loss):
    del config[section]
  if "pairs" in row.needs:
    pairs = {"pairs": "", "pairs_digest": config_dict.placeholder(str)}
    # A velocity can be trained on other rows too, a generator cannot.
    mixed = not options.marked(row.loss, options.InPairs)
    share = {"synthetic_share": 1.0} if mixed else {}
    update(config, {"data": pairs | share})
  else:
    # Minibatch optimal transport among so many rows; 0: none.
    coupling = {"rows": 0, "within_class": True}
    update(config, {"data": {"coupling": coupling}})
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
