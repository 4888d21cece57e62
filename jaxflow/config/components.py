"""The components of a config, with a field for each of their options."""

import functools
import operator
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from jaxflow.config import registry

# A ConfigDict, whose attributes are dynamic.
Config = Any

# Kinds of the components whose field has another name.
_KIND_OF = {
  "discriminator.network": "discriminator",
  "discriminator.times": "starts",
  "evaluation.network": "extractor",
  "features.network": "features",
}


def components(config: Config, prefix: str = "") -> dict[str, str]:
  """Return the kind of every component of a config, by dotted field.

  Example:
    >>> from jaxflow.config import default_config
    >>> config = default_config("mean_flow", data="ring", model="mlp")
    >>> components(config)["times.law"], components(config)["ema.sampling"]
    ('law', 'ema')
  """
  found = {}
  for name, value in config.items():
    field = f"{prefix}{name}"
    if not isinstance(value, ConfigDict) or name == "config":
      continue
    kind = _KIND_OF.get(field, "ema" if prefix == "ema." else name)
    if "name" in value and kind in registry.KINDS:
      found[field] = kind
    found |= components(value, f"{field}.")
  return found


def complete(config: Config) -> None:
  """Set every option that components leave to its default, in place.

  Args:
    config: The config.

  Raises:
    UsageError: If there is no component of a name.
  """
  found = components(config)
  for field, kind in found.items():
    # Those inside of others are completed with them.
    if field.rpartition(".")[0] not in found:
      given = at(config, field).to_dict()
      set_component(config, field, registry.complete(kind, given, field=field))


def at(config: Config, field: str) -> Config:
  """Return what stands at a dotted field.

  Example:
    >>> at(ConfigDict({"times": {"law": {"std": 2.0}}}), "times.law.std")
    2.0
  """
  return functools.reduce(operator.getitem, field.split("."), config)


def set_component(
  config: Config, field: str, specification: Mapping[str, Any]
) -> None:
  """Replace a component, in place.

  Args:
    config: The config.
    field: Its dotted field.
    specification: `name` and options; a type is a place for a value.
  """
  section, _, last = field.rpartition(".")
  outer = at(config, section) if section else config
  with outer.unlocked(), outer.ignore_type():
    outer[last] = ConfigDict(with_places(specification))


def with_places(values: Any) -> Any:
  """Replace types by places for values of that type, in nested mappings.

  Example:
    >>> ConfigDict(with_places({"step": int, "seed": 0})).to_dict()
    {'seed': 0, 'step': None}
  """
  if isinstance(values, Mapping):
    return {k: with_places(v) for k, v in values.items()}
  return config_dict.placeholder(values) if isinstance(values, type) else values
