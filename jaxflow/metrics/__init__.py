"""Metrics: functions of arrays, and the table of all of them.

  of samples     `sliced_wasserstein`, `energy_distance`, `gaussian_mmd`,
                 `wasserstein`, `precision_recall`, `memorisation`
  of features    `frechet_distance` of two `Moments`, `kernel_distance`
  of logits      `inception_score` of `Confidences`, `class_accuracy`
  of a velocity  `negative_log_likelihood`, `trajectories`
  of a run       `SampleSummary`, `Judge`, `table`

Functions import scikit-learn and scipy themselves: these take two seconds to
import, longer than many commands run.
"""

from jaxflow.metrics.classification import NeighbourClassifier, class_accuracy
from jaxflow.metrics.comparison import compare
from jaxflow.metrics.confidences import Confidences, inception_score
from jaxflow.metrics.distances import sliced_wasserstein, wasserstein
from jaxflow.metrics.estimates import Estimate
from jaxflow.metrics.kernels import (
  energy_distance,
  gaussian_mmd,
  kernel_distance,
)
from jaxflow.metrics.likelihood import (
  Likelihood,
  dequantise,
  negative_log_likelihood,
)
from jaxflow.metrics.mixtures import Mixture, high_quality, mode_coverage
from jaxflow.metrics.moments import Moments, frechet_distance
from jaxflow.metrics.neighbours import (
  PrecisionRecall,
  memorisation,
  nearest_neighbours,
  precision_recall,
)
from jaxflow.metrics.scores import Judge, Score, score, table
from jaxflow.metrics.subsets import random_subset, repeated_labels
from jaxflow.metrics.summary import SampleSummary
from jaxflow.metrics.table import (
  METRICS,
  OF_VELOCITIES,
  Metric,
  asks_class,
  direction,
  of_velocity,
  sees_images,
)
from jaxflow.metrics.trajectories import Trajectories, trajectories

__all__ = [
  "METRICS",
  "OF_VELOCITIES",
  "Confidences",
  "Estimate",
  "Judge",
  "Likelihood",
  "Metric",
  "Mixture",
  "Moments",
  "NeighbourClassifier",
  "PrecisionRecall",
  "SampleSummary",
  "Score",
  "Trajectories",
  "asks_class",
  "class_accuracy",
  "compare",
  "dequantise",
  "direction",
  "energy_distance",
  "frechet_distance",
  "gaussian_mmd",
  "high_quality",
  "inception_score",
  "kernel_distance",
  "memorisation",
  "mode_coverage",
  "nearest_neighbours",
  "negative_log_likelihood",
  "of_velocity",
  "precision_recall",
  "random_subset",
  "repeated_labels",
  "score",
  "sees_images",
  "sliced_wasserstein",
  "table",
  "trajectories",
  "wasserstein",
]
