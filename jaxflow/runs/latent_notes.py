"""Whether the latents of a data set are those that a network was trained on."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxflow import data
from jaxflow.errors import UsageError
from jaxflow.options import Finite, Positive
from jaxflow.plans import DataPlan
from jaxflow.reading import read_json, reading

# What is known of an import, beside the run's config.
RECORD = "import.json"
# Autoencoders and data sets of one kind differ by less, of a deviation.
_ALIKE = 0.1

_HOLDS = {"latents": ({"mean": [Finite], "std": [Positive]}, type(None))}


def latent_notes(workdir: str | pathlib.Path, plan: DataPlan) -> list[str]:
  """Return a line if a run was imported for latents other than the data."""
  try:
    with reading(f"{workdir}/{RECORD}", "import the network again"):
      known = read_json(pathlib.Path(workdir) / RECORD, _HOLDS)["latents"]
    space = data.latent_space(plan.name, plan.data_dir) if known else None
  except (OSError, UsageError):  # No import, or no data to compare.
    return []
  if space is None or not (line := _difference(known, space)):
    return []
  return [f"{workdir}: {line} (data.data_dir={plan.data_dir!r})"]


def _difference(known: Mapping[str, Any], space: data.LatentSpace) -> str:
  """Return how two normalisations differ, "" where they are alike."""
  mean, std = (np.asarray(known[name]) for name in ("mean", "std"))
  here = space.std / space.scale
  if mean.shape == here.shape:
    apart = np.abs(space.mean - mean) / std, np.abs(here / std - 1)
    if np.max(apart) < _ALIKE:
      return ""
  published = not mean.any() and np.ptp(std) == 0
  remedy = f"--multiply={1 / std[0]:.5g}" if published else "no --multiply"
  return (
    f"its network was trained on latents of mean {_text(mean)} and deviation "
    f"{_text(std)}, the data take {_text(space.mean)} and {_text(here)}: make "
    f"them with `jaxflow encode` and {remedy}"
  )


def _text(numbers: np.ndarray) -> str:
  return f"({', '.join(f'{x:.3g}' for x in numbers)})"
