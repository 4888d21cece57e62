"""Reference statistics from a file, in place of features of real data."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxflow import evaluation
from jaxflow.errors import UsageError, named
from jaxflow.evaluation import FeatureNetwork
from jaxflow.metrics import SampleSummary
from jaxflow.parallel import processes
from jaxflow.plans import Plan

FIELD = "evaluation.reference"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
  """Statistics that a config names.

  Attributes:
    path: The file.
    network: Whose features they are of.
    drawn: The statistics.
    about: Their description in the file, {} in published files.
  """

  path: str
  network: str
  drawn: SampleSummary
  about: Mapping[str, Any]

  @property
  def split(self) -> str | None:
    """The split that they are of, if the file says so."""
    return self.about.get("split")

  def describe(self) -> dict[str, Any]:
    """Return the description of the reference, for evaluation.json."""
    num = self.about.get("num")
    return {"file": self.path, "num": num, "about": dict(self.about)}

  def replace_in(self, reference: SampleSummary) -> SampleSummary:
    """Replace computed statistics by those of the file.

    Args:
      reference: Real samples; rows are kept of as many as both have.

    Raises:
      UsageError: The features have another size.
    """
    size = len(reference.moments[self.network].mean)
    found = len(self.drawn.moments[self.network].mean)
    if found != size:
      raise UsageError(
        f"{FIELD}={self.path!r} has {found} numbers a sample, and the network "
        f"{self.network!r} gives {size}: give statistics of this network"
      )
    kept = min([reference.num_rows, *map(len, self.drawn.features.values())])
    first = slice(kept)
    return dataclasses.replace(
      reference,
      samples=None if reference.samples is None else reference.samples[first],
      label=None if reference.label is None else reference.label[first],
      logits={name: rows[first] for name, rows in reference.logits.items()},
      features={
        name: rows[first] for name, rows in self.drawn.features.items()
      },
      moments=self.drawn.moments,
    )


def read_reference(plan: Plan, network: FeatureNetwork | None) -> Stored | None:
  """Read the statistics of `evaluation.reference`, None without a file.

  Args:
    plan: The run's plan.
    network: The feature network.

  Raises:
    UsageError: There is no network, or the file is missing, damaged, or of
      another network, other data or another split.
  """
  path = plan.evaluation.reference
  if not path:
    return None
  if network is None:
    raise UsageError(
      f"{FIELD}={path!r}: statistics are of what a network sees; give "
      "evaluation.network.name"
    )
  with named(path=FIELD):
    drawn, about = processes.together(
      lambda: evaluation.read_statistics(pathlib.Path(path), network.name)
    )
  here = {
    "protocol": network.protocol,
    "sha256": network.sha256,
    "data": plan.data.name,
    # Of the fresh real samples none may be in the reference.
    "split": plan.evaluation.split,
  }
  for key, value in here.items():
    if about.get(key, value) != value:
      raise UsageError(
        f"{FIELD}={path!r} was made with {key} {about[key]!r}, and here it is "
        f"{value!r}: "
        + (
          f"set evaluation.split={about[key]}"
          if key == "split"
          else "make it again with jaxflow stats, or evaluate as it was made"
        )
      )
  return Stored(path=path, network=network.name, drawn=drawn, about=about)
