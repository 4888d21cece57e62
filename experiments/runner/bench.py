"""What an experiment measures with: its settings, seeds, networks, folders."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jaxflow
from experiments.runner.fits import Fits
from experiments.runner.fitting import fit
from experiments.runner.judges import PlaneJudge
from jaxflow import data
from jaxflow.config import Config, update

ROOT = pathlib.Path(__file__).parents[2]


@dataclasses.dataclass(kw_only=True)
class Bench:
  """A place to measure at.

  Attributes:
    settings: The experiment's settings, of the full or of the quick form.
    workdir: Where trained networks are kept.
    figures: Where pictures of samples go.
    quick: Whether this is the quick form.
    say: Prints a line.
    trained: Seconds that all runs took to train.
  """

  settings: Mapping[str, Any]
  workdir: pathlib.Path
  figures: pathlib.Path
  quick: bool = False
  log: Callable[[str], None] = print
  trained: float = 0.0

  @property
  def seeds(self) -> tuple[int, ...]:
    """The seeds of every number."""
    return tuple(range(self.settings["seeds"]))

  def config(self, name: str, *changes: Mapping[str, Any]) -> Config:
    """Return the config of a method, with changes.

    Args:
      name: Data set and method, "ring:mean_flow": a file of `configs/` and what
        it is asked for.
      *changes: Fields to change, as nested mappings, one after the other.
    """
    file, _, method = name.partition(":")
    config = jaxflow.preset(f"{ROOT / 'configs' / file}.py:{method}")
    for change in changes:
      update(config, change)
    return config

  def judge(self) -> PlaneJudge:
    """Return the judge of points on the ring, a rough one in the short form."""
    num = 2_000 if self.quick else 20_000
    return PlaneJudge(data.known_mixture("ring"), num=num)

  def fit(self, title: str, config: Config, **others: Any) -> Fits:
    """Train a config on all seeds, or find it trained.

    Args:
      title: What to print.
      config: The config.
      **others: As `fitting.fit`.
    """
    fits = fit(config, self.seeds, self.workdir / "fits", **others)
    seconds = fits.seconds
    self.trained += seconds
    diverged = f", {n} diverged" if (n := int(fits.diverged.sum())) else ""
    self.log(f"{title}: {fits.steps:,} steps in {seconds:.0f} s{diverged}")
    return fits
