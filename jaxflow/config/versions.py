"""Configs of earlier versions: fields that they lack, and fields that are gone.

A config.json carries the version that wrote it; those without one are of
0.1.0. A field that it lacks takes the default of the version that introduced
the field: that is the present default, or stands in `FIRST_DEFAULTS` where the
default has changed since. A field that is gone stands in `GONE` with the value
that it had by default.
"""

import logging
import re
from collections.abc import Callable, Container, Mapping
from typing import Any

from ml_collections import ConfigDict

import jaxflow
from jaxflow.config import components, registry, schema
from jaxflow.config.fields import flatten
from jaxflow.errors import UsageError
from jaxflow.options import Count, Natural, parameters
from jaxflow.reading import checked

# The default of a field in the version that introduced it, by dotted name,
# where it is not the present one.
FIRST_DEFAULTS: Mapping[str, Any] = {}

# Fields that are gone, with the value that they had by default.
GONE: Mapping[str, Any] = {
  # Scores had the spread of four draws in place of standard errors.
  "evaluation.draws": 4,
  # Frechet distances have the same number of samples as other metrics.
  "evaluation.frechet_num": 0,
}

# How samples follow from a seed; raised when they change, with whom it concerns
# and why.
SEEDING = 2
_CHANGES: Mapping[int, tuple[Callable[[Mapping[str, Any]], bool], str]] = {
  1: (lambda fields: True, "each sample has noise of its own now"),
  2: (
    lambda fields: (
      fields["path.name"] == "trigonometric"
      or fields["sample.guidance_start"] is not None
      or fields["sample.guidance_end"] is not None
    ),
    "trigonometric paths are exact at t_max now, and guidance includes the ends"
    " of its interval",
  ),
}

# Without these a config.json is none of ours.
_Version = Natural | None
_NEEDS = {
  "version": str | None,
  "seeding": _Version,
  "method": str,
  "data": {"name": str, "shape": [Count], "num_classes": Natural},
  "model": {"name": str},
  **dict.fromkeys(("path", "loss", "train", "sample"), dict),
}
_UNVERSIONED = "0.1.0"
# Absent fields that a line names.
_LISTED = 8
_LOGGER = logging.getLogger(__name__)


def versioned(config: components.Config) -> dict[str, Any]:
  """Return a config as config.json holds it, with the version."""
  own = {"version": jaxflow.__version__, "seeding": SEEDING}
  return own | config.to_dict()


def notes(values: Mapping[str, Any], config: components.Config) -> list[str]:
  """Return what to say of the config.json that a config was upgraded from."""
  version, own = values.get("version") or _UNVERSIONED, jaxflow.__version__
  # `evaluation.kept` came with the noise of each sample.
  seeding = values.get("seeding") or int("kept" in values.get("evaluation", {}))
  stored, fields = flatten(values), flatten(config.to_dict())
  said = [
    f"one seed drew other samples when it was written: {change}"
    for number, (concerns, change) in _CHANGES.items()
    if number > seeding and concerns(fields)
  ]
  if _order(version) > _order(own) or seeding > SEEDING:
    said.append(f"it is of version {version}, newer than {own}")
  known = [k for k, x in fields.items() if x is not None]
  absent = [k for k in known if stored.get(k) is None]
  if version == own and absent:
    listed = ", ".join(f"{k}={fields[k]!r}" for k in absent[:_LISTED])
    said.append(f"absent, so defaults hold ({len(absent)}): {listed}")
  names = [f"{k}." for k in (*fields, *GONE, "version", "seeding")]
  unknown = [k for k in stored if not any(x.startswith(f"{k}.") for x in names)]
  if unknown:  # None, or it would have been refused.
    said.append(f"no field, so left out: {', '.join(unknown[:_LISTED])}")
  return said


def _order(version: str) -> list[int]:
  return [int(number) for number in re.findall(r"\d+", version)]


def upgraded(values: Any, place: str = "") -> components.Config:
  """Return the config of a config.json, unlocked, all fields set.

  Args:
    values: What config.json holds; or what it holds of the run of a role, at
      `place`: "teacher.config".
    place: Where the values stand, for messages.

  Raises:
    UsageError: If a field is unknown and not at the default that it had.
    ValueError: If a field is absent, or has another type.
  """
  stored = dict(checked(values, _NEEDS, place))
  version = stored.pop("version", None) or _UNVERSIONED
  stored.pop("seeding", None)
  config = schema.default_config(
    stored["method"], data=stored["data"]["name"], model=stored["model"]["name"]
  )
  _name_heights(stored)
  default = set(flatten(config.to_dict()))
  check_types(config, stored, f"{place}." if place else "")
  for field, value in FIRST_DEFAULTS.items():
    section, _, option = field.rpartition(".")
    outer = components.at(config, section) if section else config
    schema.update(outer, {option: value})
  inner = {}
  for role in ("teacher", "features"):
    section = dict(stored.get(role) or {})
    inner[role] = section.pop("config", None)
    if section:
      stored[role] = section
  # Fields that hold nothing keep the places for their values.
  schema.update(config, _without_none(stored))
  _drop_gone(config, default, version)
  components.complete(config)
  with config.ignore_type():
    for role, other in inner.items():
      if other is not None:  # A place for a dict makes one of a config.
        config[role].config = upgraded(other, f"{role}.config")
  return config


def check_types(
  config: components.Config, stored: Any, start: str = ""
) -> None:
  """Raise ValueError if a field has another type; the maker checks options."""
  for name, value in checked(stored, dict, start[:-1]).items():
    default, field = config.get(name, None), f"{start}{name}"
    if isinstance(default, ConfigDict):
      if "name" in default and name not in ("data", "optimizer"):
        checked(value, dict, field)  # The options are those of its name.
      else:
        check_types(default, value, f"{field}.")
    elif isinstance(default, tuple) and default:
      checked(value, [type(default[0])], field)
    elif name in config and (value, default) != (None, None):
      checked(value, config.get_type(name), field)


def _name_heights(stored: dict[str, Any]) -> None:
  """Leave out heights at which a U-Net attends but has no level, in place.

  Early versions passed over them; now they are refused.
  """
  model, shape = stored["model"], stored["data"].get("shape")
  if "attention_resolutions" not in model or not shape:
    return
  heights = {shape[0] >> level for level in range(len(model["multipliers"]))}
  kept = [x for x in model["attention_resolutions"] if x in heights]
  stored["model"] = {**model, "attention_resolutions": kept}


def _drop_gone(
  config: components.Config, default: Container[str], version: str
) -> None:
  """Remove the fields that are gone; raise UsageError where one was in use."""
  for field, value in unknown(config, default).items():
    if field not in GONE or GONE[field] != value:
      raise UsageError(
        f"{field}={value!r} of version {version} is no field of this code, "
        f"version {jaxflow.__version__}: open the run with the code that wrote "
        "it, or take out what was added"
      )
    _LOGGER.warning("config.json: %s=%r is dropped: it is gone", field, value)
    section, _, option = field.rpartition(".")
    with config.unlocked():
      del components.at(config, section)[option]


def unknown(
  config: components.Config, default: Container[str]
) -> dict[str, Any]:
  """Return the fields of a config that nothing reads, with their values.

  `default` are the fields of `default_config` for its method, data and network.
  """
  kinds, found = components.components(config), {}
  for field, value in flatten(config.to_dict()).items():
    section, _, option = field.rpartition(".")
    if section in kinds:
      name = components.at(config, section).name
      maker = registry.maker_of(kinds[section], name, field=section)
      known = option == "name" or option in parameters(maker)
    else:
      known = field in default or value is None
    if not known:
      found[field] = value
  return found


def _without_none(values: Any) -> Any:
  """Drop None from nested dicts, and make tuples of lists."""
  if isinstance(values, dict):
    parts = {k: _without_none(v) for k, v in values.items()}
    return {k: v for k, v in parts.items() if v is not None}
  return tuple(values) if isinstance(values, list) else values
