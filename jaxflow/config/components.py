"""The components of a config, with a field for each of their options."""

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from jaxflow import plugins
from jaxflow.config import registry
from jaxflow.errors import UsageError
from jaxflow.methods import METHODS, Method

# A ConfigDict, whose attributes are dynamic.
Config = Any

# Kinds of the components that sections are or have, beside the laws of `ema`;
# those inside of a loss, or of a component, are options of it.
_KINDS = {
  **{k: k for k in ("path", "model", "parameterization", "flow_map", "times")},
  "adapter": "adapter",
  "sample.grid": "grid",
  "sample.sampler": "sampler",
  "discriminator.network": "discriminator",
  "discriminator.times": "starts",
  "fake_score.times": "starts",
  "critic.network": "critic",
  "evaluation.network": "extractor",
  "features.network": "features",
}


def method_named(name: str) -> Method:
  """Return a row of METHODS, or that of a plug-in."""
  row = registry.choose("method", name, METHODS, kind="method")
  if not isinstance(row, Method):
    raise UsageError(
      f"method={name!r} is of type {type(row).__name__}: give a "
      "jaxflow.methods.Method"
    )
  return row


def methods() -> Mapping[str, Method]:
  """Return all methods that have a name, those of programs too."""
  return {**METHODS, **plugins.registered("method")}


def method_name(config: Config) -> str:
  """Return the name of the method of a config."""
  return config.method


def method_of(config: Config) -> Method:
  """Return the method of a config; raise UsageError if it is unknown."""
  return method_named(config.method)


def schedule_steps(config: Config) -> int:
  """Return the length of schedules and curricula, in steps."""
  return config.train.schedule_steps or config.train.steps


def components(config: Config) -> dict[str, str]:
  """Return the kind of every component of a config, by dotted field.

  Raises UsageError if the method, or a component, is unknown.
  """
  kinds = _KINDS | {f"ema.{name}": "ema" for name in config.get("ema", {})}
  found = _components(config, kinds, "")
  for prefix, loss in losses(config).items():
    kinds = registry.kinds_of(loss)
    found |= _components(at(config, prefix), kinds, f"{prefix}.")
  return found


def losses(config: Config) -> dict[str, Callable[..., Any]]:
  """Return the losses by the section of their options."""
  method = method_of(config)
  theirs = {
    f"{name}.loss": loss
    for name, loss in method.companions.items()
    if "loss" in config.get(name, {})
  }
  return {"loss": method.loss, **theirs}


def makers(config: Config) -> dict[str, Callable[..., Any]]:
  """Return the functions that take the options of a config, by field."""
  found = losses(config)
  for field, kind in components(config).items():
    name = at(config, field).name
    if name is not None:
      found[field] = registry.maker_of(kind, name, field=field)
  return found


def _components(
  section: Config, kinds: Mapping[str, str], prefix: str
) -> dict[str, str]:
  """Return the kinds of components of a section, and of those inside."""
  found = {}
  for name, kind in kinds.items():
    outer, _, last = name.rpartition(".")
    value = (section.get(outer, {}) if outer else section).get(last, None)
    if isinstance(value, ConfigDict) and "name" in value:
      field = f"{prefix}{name}"
      found[field] = kind
      if value.name is not None:  # None is a place for a name.
        maker = registry.maker_of(kind, str(value.name), field=field)
        found |= _components(value, registry.kinds_of(maker), f"{field}.")
  return found


def complete(config: Config) -> None:
  """Set every option that components leave to its default, in place."""
  found = components(config)
  for field, kind in found.items():
    # Those inside of others are completed with them.
    if field.rpartition(".")[0] not in found:
      given = at(config, field).to_dict()
      set_component(config, field, registry.complete(kind, given, field=field))


def at(config: Config, field: str) -> Config:
  """Return the value of a dotted field."""
  return functools.reduce(operator.getitem, field.split("."), config)


def set_component(
  config: Config, field: str, specification: Mapping[str, Any]
) -> None:
  """Replace a component in place; a type is a place for a value."""
  section, _, last = field.rpartition(".")
  outer = at(config, section) if section else config
  with outer.unlocked(), outer.ignore_type():
    outer[last] = ConfigDict(with_places(specification))


def with_places(values: Any) -> Any:
  """Replace types by places for values of that type, in nested mappings."""
  if isinstance(values, Mapping):
    return {k: with_places(v) for k, v in values.items()}
  return config_dict.placeholder(values) if isinstance(values, type) else values
