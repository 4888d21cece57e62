"""How good samples are, always beside what real data would score.

Nothing here knows how the samples came about: an evaluation takes a sampler, a
metric takes arrays.

scikit-learn, scipy and matplotlib take two seconds to import, longer than many
a command: functions import of them what they call.
"""

from jaxflow.evaluation.assignments import wasserstein
from jaxflow.evaluation.collecting import Collector
from jaxflow.evaluation.comparison import compare
from jaxflow.evaluation.confidences import Confidences, inception_score
from jaxflow.evaluation.cost_table import COST_COLUMNS, cost_cells, cost_table
from jaxflow.evaluation.costs import Cost, Quality, read_costs
from jaxflow.evaluation.curves import read_log, save_curves
from jaxflow.evaluation.distances import energy_distance, sliced_wasserstein
from jaxflow.evaluation.drawn import Drawn
from jaxflow.evaluation.estimates import Estimate
from jaxflow.evaluation.evaluate import Dataset, Sampler, evaluate
from jaxflow.evaluation.extraction import FeatureNetwork, extraction
from jaxflow.evaluation.frechet import frechet_distance
from jaxflow.evaluation.grids import save_grid, save_points
from jaxflow.evaluation.image_figures import save_matrix, save_strip
from jaxflow.evaluation.interpolation import slerp
from jaxflow.evaluation.kernels import gaussian_discrepancy, kernel_distance
from jaxflow.evaluation.latency import Latency, excess, time_together
from jaxflow.evaluation.likelihood import negative_log_likelihood
from jaxflow.evaluation.manifolds import Manifolds, manifolds
from jaxflow.evaluation.metrics import METRICS, Metric
from jaxflow.evaluation.mixtures import Mixture, high_quality, mode_coverage
from jaxflow.evaluation.moments import Moments, merge
from jaxflow.evaluation.nats import Likelihood, dequantise
from jaxflow.evaluation.neighbours import memorisation, nearest
from jaxflow.evaluation.plane_figures import (
  save_arrows,
  save_density,
  save_trajectories,
)
from jaxflow.evaluation.recognition import Recognizer, class_accuracy
from jaxflow.evaluation.scores import (
  Judge,
  Score,
  asks_class,
  direction,
  of_velocity,
  score,
  sees_images,
  table,
)
from jaxflow.evaluation.statistics import read_statistics, write_statistics
from jaxflow.evaluation.stored import leading_metric, read_rows
from jaxflow.evaluation.subsets import random_subset, repeated_labels
from jaxflow.evaluation.tradeoff import save_tradeoff, shared_metric
from jaxflow.evaluation.trajectories import Trajectories, trajectories

__all__ = [
  "COST_COLUMNS",
  "METRICS",
  "Collector",
  "Confidences",
  "Cost",
  "Dataset",
  "Drawn",
  "Estimate",
  "FeatureNetwork",
  "Judge",
  "Latency",
  "Likelihood",
  "Manifolds",
  "Metric",
  "Mixture",
  "Moments",
  "Quality",
  "Recognizer",
  "Sampler",
  "Score",
  "Trajectories",
  "asks_class",
  "class_accuracy",
  "compare",
  "cost_cells",
  "cost_table",
  "dequantise",
  "direction",
  "energy_distance",
  "evaluate",
  "excess",
  "extraction",
  "frechet_distance",
  "gaussian_discrepancy",
  "high_quality",
  "inception_score",
  "kernel_distance",
  "leading_metric",
  "manifolds",
  "memorisation",
  "merge",
  "mode_coverage",
  "nearest",
  "negative_log_likelihood",
  "of_velocity",
  "random_subset",
  "read_costs",
  "read_log",
  "read_rows",
  "read_statistics",
  "repeated_labels",
  "save_arrows",
  "save_curves",
  "save_density",
  "save_grid",
  "save_matrix",
  "save_points",
  "save_strip",
  "save_tradeoff",
  "save_trajectories",
  "score",
  "sees_images",
  "shared_metric",
  "slerp",
  "sliced_wasserstein",
  "table",
  "time_together",
  "trajectories",
  "wasserstein",
  "write_statistics",
]
