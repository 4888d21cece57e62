"""The config of a workdir, and its fields that may change."""

import functools
import json
import logging
import pathlib
from collections.abc import Collection

from jaxflow import options
from jaxflow.config import limits, plans, versions
from jaxflow.config.components import Config, makers
from jaxflow.config.versions import flatten
from jaxflow.errors import UsageError
from jaxflow.files import read_json, reading, replace_file
from jaxflow.options import Count, Natural

# Fields that may change between two runs in one workdir; the state holds none.
MUTABLE = (
  "checkpoint.",
  "data.data_dir",
  "data.download",
  # The digest says which pairs they are.
  "data.pairs",
  "data.ram_gib",
  "data.raw_dir",
  "data.threads",
  "evaluation.",
  "mesh.",
  "sample.",
  "train.log_every",
  "train.max_skipped",
  "train.sample_every",
  "train.steps",
  "train.steps_per_dispatch",
)

_LOGGER = logging.getLogger(__name__)
# Fields that a message names, of those that have changed.
_LISTED = 8

# Without these a config.json is none of ours.
_Natural = Natural | None
_NEEDS = {
  "version": str | None,
  "seeding": _Natural,
  "method": str,
  "data": {"name": str, "shape": [Count], "num_classes": Natural},
  "model": {"name": str},
  **dict.fromkeys(("path", "loss", "train", "sample"), dict),
}


def save_config(config: Config, path: pathlib.Path) -> None:
  """Write a config as JSON, with the version, replacing the file at once."""
  text = json.dumps(versions.versioned(config), indent=2) + "\n"
  replace_file(path, lambda draft: draft.write_text(text))


def load_config(workdir: pathlib.Path) -> Config:
  """Read the config of a run's folder; lock it with all fields set.

  Raises UsageError if the folder holds no run, or one of another version that
  cannot be opened.
  """
  where = f"workdir={str(workdir)!r}: config.json"
  try:
    with reading(where, "restore it from a copy, or give another folder"):
      values = read_json(workdir / "config.json", _NEEDS)
      config = versions.upgraded(values)
      limits.check_limits(config)
      if values["model"]["name"] != "given":
        plans.make_plan(config)  # Says what does not fit.
    for note in versions.notes(values, config):
      _warn_once(f"{workdir / 'config.json'}: {note}")
    return config.lock()
  except (FileNotFoundError, NotADirectoryError) as error:
    raise UsageError(
      f"workdir={str(workdir)!r} holds no config.json: give the folder of a "
      "run that `jaxflow train` has made"
    ) from error


@functools.cache
def _warn_once(line: str) -> None:
  _LOGGER.warning("%s", line)


def check_same_run(
  saved: Config, config: Config, workdir: str, *, sampled: bool = False
) -> None:
  """Raise UsageError if a workdir was made with another config.

  A run that is only `sampled` may take its steps in another way.
  """
  old, new = flatten(saved.to_dict()), flatten(config.to_dict())
  flow_map = options.marked(makers(config)["flow_map"], options.Sampling)
  mutable = MUTABLE + tuple(f"flow_map.{name}" for name in flow_map)
  if sampled:
    mutable += ("flow_map.",)
  changed = [
    k
    for k in sorted(old.keys() | new.keys(), key=lambda k: (k != "method", k))
    if old.get(k) != new.get(k) and not _is_one_of(k, mutable)
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


def _is_one_of(field: str, names: Collection[str]) -> bool:
  """Return whether a field, or a section of it that ends with ".", is named."""
  return any(
    field.startswith(name) if name.endswith(".") else field == name
    for name in names
  )
