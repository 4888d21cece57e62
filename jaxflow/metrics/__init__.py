"""Metrics: functions of arrays, and the table of all of them.

scikit-learn and scipy take two seconds to import, longer than many a command:
functions import of them what they call.
"""

from jaxflow.metrics.assignments import wasserstein
from jaxflow.metrics.bits import Likelihood, dequantise
from jaxflow.metrics.comparison import compare
from jaxflow.metrics.confidences import Confidences, inception_score
from jaxflow.metrics.distances import energy_distance, sliced_wasserstein
from jaxflow.metrics.estimates import Estimate
from jaxflow.metrics.frechet import frechet_distance
from jaxflow.metrics.kernels import gaussian_discrepancy, kernel_distance
from jaxflow.metrics.likelihood import negative_log_likelihood
from jaxflow.metrics.manifolds import Manifolds, manifolds
from jaxflow.metrics.mixtures import Mixture, high_quality, mode_coverage
from jaxflow.metrics.moments import Moments, merge
from jaxflow.metrics.neighbours import memorisation, nearest
from jaxflow.metrics.recognition import Recognizer, class_accuracy
from jaxflow.metrics.scores import (
  Judge,
  Score,
  asks_class,
  direction,
  of_velocity,
  score,
  sees_images,
  table,
)
from jaxflow.metrics.subsets import random_subset, repeated_labels
from jaxflow.metrics.summary import Drawn
from jaxflow.metrics.table import METRICS, Metric
from jaxflow.metrics.trajectories import Trajectories, trajectories

__all__ = [
  "METRICS",
  "Confidences",
  "Drawn",
  "Estimate",
  "Judge",
  "Likelihood",
  "Manifolds",
  "Metric",
  "Mixture",
  "Moments",
  "Recognizer",
  "Score",
  "Trajectories",
  "asks_class",
  "class_accuracy",
  "compare",
  "dequantise",
  "direction",
  "energy_distance",
  "frechet_distance",
  "gaussian_discrepancy",
  "high_quality",
  "inception_score",
  "kernel_distance",
  "manifolds",
  "memorisation",
  "merge",
  "mode_coverage",
  "nearest",
  "negative_log_likelihood",
  "of_velocity",
  "random_subset",
  "repeated_labels",
  "score",
  "sees_images",
  "sliced_wasserstein",
  "table",
  "trajectories",
  "wasserstein",
]
