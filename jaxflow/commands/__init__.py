"""What the command line does, as functions."""

from jaxflow.commands.bench import bench
from jaxflow.commands.encode import Options as EncodeOptions
from jaxflow.commands.encode import encode
from jaxflow.commands.evaluate import evaluate
from jaxflow.commands.pairs import Options as PairOptions
from jaxflow.commands.pairs import make_pairs
from jaxflow.commands.rectify import Rounds, rectify
from jaxflow.commands.report import report
from jaxflow.commands.sample import sample, save_samples
from jaxflow.commands.stats import StatsOptions, write_stats
from jaxflow.commands.train import train

__all__ = [
  "EncodeOptions",
  "PairOptions",
  "Rounds",
  "StatsOptions",
  "bench",
  "encode",
  "evaluate",
  "make_pairs",
  "rectify",
  "report",
  "sample",
  "save_samples",
  "train",
  "write_stats",
]
