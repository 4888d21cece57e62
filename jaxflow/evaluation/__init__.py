"""How good samples are, always beside what real data would score.

Nothing here knows how the samples came about: an evaluation takes a sampler, a
metric takes arrays.
"""

from jaxflow.evaluation.distances import energy_distance, sliced_wasserstein
from jaxflow.evaluation.evaluate import Dataset, Sampler, evaluate
from jaxflow.evaluation.grids import save_grid, save_points
from jaxflow.evaluation.manifolds import precision_recall
from jaxflow.evaluation.mixtures import Mixture, high_quality, mode_coverage
from jaxflow.evaluation.moments import (
  LARGEST,
  Moments,
  frechet_distance,
  moments,
)
from jaxflow.evaluation.recognition import Recognizer
from jaxflow.evaluation.scores import METRICS, Score, table

__all__ = [
  "LARGEST",
  "METRICS",
  "Dataset",
  "Mixture",
  "Moments",
  "Recognizer",
  "Sampler",
  "Score",
  "energy_distance",
  "evaluate",
  "frechet_distance",
  "high_quality",
  "mode_coverage",
  "moments",
  "precision_recall",
  "save_grid",
  "save_points",
  "sliced_wasserstein",
  "table",
]
