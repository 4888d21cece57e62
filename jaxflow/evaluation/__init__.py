"""How good samples are, always beside what real data would score.

Nothing here knows how the samples came about: an evaluation takes a sampler, a
metric takes arrays.
"""

from jaxflow.evaluation.comparison import compare
from jaxflow.evaluation.confidences import Confidences, inception_score
from jaxflow.evaluation.distances import energy_distance, sliced_wasserstein
from jaxflow.evaluation.drawn import Drawn
from jaxflow.evaluation.estimates import Estimate
from jaxflow.evaluation.evaluate import Dataset, Sampler, evaluate
from jaxflow.evaluation.frechet import frechet_distance
from jaxflow.evaluation.grids import save_grid, save_points
from jaxflow.evaluation.manifolds import Manifolds, manifolds
from jaxflow.evaluation.metrics import METRICS, Metric
from jaxflow.evaluation.mixtures import Mixture, high_quality, mode_coverage
from jaxflow.evaluation.moments import LARGEST, Moments, moments
from jaxflow.evaluation.recognition import Recognizer, class_accuracy
from jaxflow.evaluation.scores import Score, score, table

__all__ = [
  "LARGEST",
  "METRICS",
  "Confidences",
  "Dataset",
  "Drawn",
  "Estimate",
  "Manifolds",
  "Metric",
  "Mixture",
  "Moments",
  "Recognizer",
  "Sampler",
  "Score",
  "class_accuracy",
  "compare",
  "energy_distance",
  "evaluate",
  "frechet_distance",
  "high_quality",
  "inception_score",
  "manifolds",
  "mode_coverage",
  "moments",
  "save_grid",
  "save_points",
  "score",
  "sliced_wasserstein",
  "table",
]
