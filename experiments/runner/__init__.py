"""What all experiments share: networks of several seeds, tables, verdicts.

An experiment is a folder with a `run.py` that makes one `Study`: its settings,
what it measures, the claims that it tests and its figures. `Study.main` runs it
and writes everything that the repository keeps of it.
"""

from experiments.runner.bench import Bench
from experiments.runner.figures import (
  logarithmic,
  panels,
  save_images,
  save_points,
)
from experiments.runner.fits import Fits
from experiments.runner.fitting import fit, named_runs
from experiments.runner.judges import ImageJudge, PlaneJudge
from experiments.runner.pairs import make_pairs
from experiments.runner.results import Results, Row
from experiments.runner.study import Column, Study
from experiments.runner.verdicts import Check, Claim, at_least, at_most

__all__ = [
  "Bench",
  "Check",
  "Claim",
  "Column",
  "Fits",
  "ImageJudge",
  "PlaneJudge",
  "Results",
  "Row",
  "Study",
  "at_least",
  "at_most",
  "fit",
  "logarithmic",
  "make_pairs",
  "named_runs",
  "panels",
  "save_images",
  "save_points",
]
