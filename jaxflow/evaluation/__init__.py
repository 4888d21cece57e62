"""The evaluation of runs: every score stands beside that of real data.

Nothing here knows how the samples came about: an evaluation takes a sampler, a
metric takes arrays.

scikit-learn, scipy and matplotlib take two seconds to import, longer than many
a command: functions import them when they run.
"""

from jaxflow.evaluation.collecting import Collector
from jaxflow.evaluation.evaluate import Dataset, Sampler, evaluate
from jaxflow.evaluation.extraction import FeatureNetwork, extraction
from jaxflow.evaluation.statistics import read_statistics, write_statistics
from jaxflow.evaluation.stored import leading_metric, read_rows

__all__ = [
  "Collector",
  "Dataset",
  "FeatureNetwork",
  "Sampler",
  "evaluate",
  "extraction",
  "leading_metric",
  "read_rows",
  "read_statistics",
  "write_statistics",
]
