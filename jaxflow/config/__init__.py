"""The config: its schema, files and flags, and the door to plans.

A config is an `ml_collections.ConfigDict`. Only this folder reads it; the rest
of the library takes the plans that `make_plan` builds of it.

A name is imported when it is first used: `fields` needs no JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

# The module of every name.
_HOME = {
  **dict.fromkeys(
    ("Config", "method_name", "method_of", "methods", "schedule_steps"),
    "components",
  ),
  **dict.fromkeys(
    (
      "check_same_run",
      "flatten",
      "load_config",
      "load_plan",
      "new_rhythm",
      "save_config",
    ),
    "files",
  ),
  **dict.fromkeys(("config_of_run",), "flags"),
  **dict.fromkeys(("check_limits",), "limits"),
  **dict.fromkeys(
    (
      "data_plan",
      "embedded",
      "evaluation_plan",
      "make_plan",
      "mesh_axes",
      "seed_of",
      "sources",
    ),
    "plans",
  ),
  **dict.fromkeys(
    ("changed", "default_config", "given", "resolve", "update"), "schema"
  ),
}

__all__ = [
  "Config",
  "changed",
  "check_limits",
  "check_same_run",
  "config_of_run",
  "data_plan",
  "default_config",
  "embedded",
  "evaluation_plan",
  "flatten",
  "given",
  "load_config",
  "load_plan",
  "make_plan",
  "mesh_axes",
  "method_name",
  "method_of",
  "methods",
  "new_rhythm",
  "resolve",
  "save_config",
  "schedule_steps",
  "seed_of",
  "sources",
  "update",
]

if TYPE_CHECKING:
  from jaxflow.config.components import (
    Config,
    method_name,
    method_of,
    methods,
    schedule_steps,
  )
  from jaxflow.config.files import (
    check_same_run,
    flatten,
    load_config,
    load_plan,
    new_rhythm,
    save_config,
  )
  from jaxflow.config.flags import config_of_run
  from jaxflow.config.limits import check_limits
  from jaxflow.config.plans import (
    data_plan,
    embedded,
    evaluation_plan,
    make_plan,
    mesh_axes,
    seed_of,
    sources,
  )
  from jaxflow.config.schema import (
    changed,
    default_config,
    given,
    resolve,
    update,
  )


def __getattr__(name: str) -> Any:
  """Import a name when it is first used."""
  if name not in _HOME:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  module = importlib.import_module(f"{__name__}.{_HOME[name]}")
  globals()[name] = value = getattr(module, name)
  return value
