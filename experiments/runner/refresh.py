"""Claims, figures and pages anew from the kept numbers, without measuring.

python -m experiments.runner.refresh [NAME ...]
"""

import dataclasses
import importlib
import pathlib
import sys

from experiments.runner import pages
from experiments.runner.results import Results
from experiments.runner.study import Study

FOLDER = pathlib.Path(__file__).parents[1]


def refresh(study: Study) -> None:
  """Decide the claims of a study again, and draw and write what is made."""
  file = study.folder / "results" / f"{study.name}.json"
  results = Results.load(file)
  claims = [claim.as_json() for claim in study.claims(results)]
  results = dataclasses.replace(results, claims=claims)
  if study.figures is not None:
    study.figures(results, file.parent)
  results.save(file)
  pages.write(study, results)


def main(names: list[str]) -> None:
  """Refresh the studies of these names; default: all that have results."""
  files = FOLDER.glob("*/results/*.json")
  kept = [
    file.stem
    for file in sorted(files)
    if file.stem == file.parents[1].name and Results.is_one(file)
  ]
  for name in names or kept:
    refresh(importlib.import_module(f"experiments.{name}.run").STUDY)


if __name__ == "__main__":
  main(sys.argv[1:])
