"""The config of a workdir, and its fields that may change."""

import functools
import json
import logging
import pathlib
from typing import Any

from jaxflow import options
from jaxflow.config import limits, plans, schema, versions
from jaxflow.config.components import Config, makers, schedule_steps
from jaxflow.config.fields import flatten
from jaxflow.errors import PlugInError, UsageError
from jaxflow.files import write_text
from jaxflow.reading import read_json, reading

# What may change between two runs in one workdir; the state holds none of it.
MUTABLE = (
  "checkpoint.",
  "data.data_dir",
  "data.dir",
  "data.download",
  "data.hub",
  "data.file",
  # The digest says which pairs they are.
  "data.pairs",
  "data.ram_gib",
  "data.raw_dir",
  "data.stored_dir",
  "data.threads",
  "evaluation.",
  "mesh.",
  "sample.",
  "train.log_every",
  "train.max_skipped",
  "train.sample_every",
  "train.schedule_steps",
  "train.steps",
  "train.steps_per_dispatch",
)

# Fields that may change as well, with a line: they change how a run trains.
_RHYTHM = (
  "train.accumulate",
  "train.batch_size",
  *(
    f"{section}.{field}"
    for section in schema.OPTIMIZERS
    for field in ("learning_rate", "schedule")
  ),
)

# Fields that data decide, and that runs of earlier versions lack.
_NEWER = ("data.class_names",)

_LOGGER = logging.getLogger(__name__)
# Fields that a message names, of those that have changed.
_LISTED = 8


def save_config(config: Config, path: pathlib.Path) -> None:
  """Write a config as JSON, with the version, replacing the file at once."""
  write_text(path, json.dumps(versions.versioned(config), indent=2) + "\n")


def load_config(workdir: pathlib.Path) -> Config:
  """Read the config of a run's folder; lock it with all fields set.

  Anyone may have written it: it downloads nothing, and its `data.data_dir`
  becomes `data.stored_dir`.

  Raises UsageError if the folder holds no run, or one of another version that
  cannot be opened.
  """
  return _read(workdir)[0]


def load_plan(workdir: pathlib.Path) -> plans.Plan:
  """Return the plan of the config that `load_config` reads.

  Reading makes the plan already, which takes longer than all else of it.
  """
  config, plan = _read(workdir)
  return plans.make_plan(config) if plan is None else plan


def _read(workdir: pathlib.Path) -> tuple[Config, plans.Plan | None]:
  """Return config and plan of a run; None if its network is the caller's."""
  where = f"workdir={str(workdir)!r}: config.json"
  try:
    with reading(where, "restore it from a copy, or give another folder"):
      values = read_json(workdir / "config.json", dict, _distrusted)
      config = versions.upgraded(values)
      limits.check_limits(config)
      given = values["model"]["name"] == "given"
      plan = None if given else plans.make_plan(config)  # Says what is wrong.
    for note in versions.notes(values, config):
      _warn_once(f"{workdir / 'config.json'}: {note}")
    return config.lock(), plan
  except PlugInError as error:
    raise PlugInError(f"{where}: {error}") from error
  except (FileNotFoundError, NotADirectoryError) as error:
    raise UsageError(
      f"workdir={str(workdir)!r} holds no config.json: give the folder of a "
      "run that `jaxflow train` has made"
    ) from error


@functools.cache
def _warn_once(line: str) -> None:
  _LOGGER.warning("%s", line)


def _distrusted(section: dict[str, Any]) -> dict[str, Any]:
  """Take from a section of data what only the user may say; keep the rest."""
  latents = section.get("name") == "latents"  # Ours: nothing in them runs.
  own = section.get("data_dir")
  download = section.get("download", False)
  # Its name stays, to be said.
  damaged = not isinstance(own, str | None) or type(download) is not bool
  if latents or damaged or section.keys().isdisjoint(("data_dir", "download")):
    return section
  folder = own or section.get("stored_dir")
  return section | {"data_dir": None, "stored_dir": folder, "download": False}


def check_same_run(
  saved: Config, config: Config, workdir: str, *, sampled: bool = False
) -> None:
  """Raise UsageError if a workdir was made with another config.

  A run that is only `sampled` may take its steps in another way.
  """
  old, new = flatten(saved.to_dict()), flatten(config.to_dict())
  found = makers(config)
  own: list[str] = []
  if sampled:
    own = ["flow_map"]
  elif "flow_map" not in options.parameters(found["loss"]):
    # No loss trains through it.
    of_samples = options.marked(found["flow_map"], options.Sampling)
    own = [f"flow_map.{x}" for x in of_samples]
  # Fields, and sections with all of their fields.
  mutable = tuple(f"{x.rstrip('.')}." for x in (*MUTABLE, *_RHYTHM, *own))
  fields = sorted(old.keys() | new.keys(), key=lambda k: (k != "method", k))
  other = [k for k in fields if old.get(k) != new.get(k)]
  # Another component has other options.
  names = [k for k in other if k.endswith(".name")]
  inside = tuple(k.removesuffix("name") for k in names)
  changed = [
    k
    for k in other
    if (k in names or not k.startswith(inside))
    and not f"{k}.".startswith(mutable)
    and not (k in _NEWER and old.get(k) is None)
  ]
  if changed:
    listed = [
      f"{k}={old.get(k)!r}, not {new.get(k)!r}" for k in changed[:_LISTED]
    ]
    rest = len(changed) - len(listed)
    more = f"; and {rest} more fields" if rest else ""
    raise UsageError(
      f"workdir={workdir} was made with {'; '.join(listed)}{more}: give "
      f"another workdir, or the old value{'s' * (len(changed) > 1)}"
    )


def new_rhythm(saved: Config, config: Config) -> list[str]:
  """Return a line for each change of how a resumed run trains."""
  old, new = flatten(saved.to_dict()), flatten(config.to_dict())
  lines = [
    f"{k}={new[k]!r} from here on, in place of {old[k]!r}"
    for k in _RHYTHM
    if k in new and old.get(k) != new[k]
  ]
  had, has = schedule_steps(saved), schedule_steps(config)
  if had != has:
    lines.append(
      f"train.schedule_steps={has} in place of {had}: schedules and curricula "
      "have this length from here on"
    )
  return lines
