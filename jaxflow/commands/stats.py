"""`jaxflow stats`: write the statistics of a data set."""

import pathlib
from typing import Any

from absl import flags

from jaxflow.commands.command import Command
from jaxflow.commands.console import say
from jaxflow.commands.flags import check_writable, define_options, options_of
from jaxflow.errors import UsageError

__all__ = ["COMMAND"]


def _define(values: flags.FlagValues) -> None:
  from jaxflow.evaluation.data_statistics import StatsOptions

  flags.DEFINE_string(
    "out",
    None,
    "an .npz file, for --config.evaluation.reference",
    flag_values=values,
  )
  define_options(StatsOptions, values)


def _run(values: flags.FlagValues, config: Any) -> int:
  out = pathlib.Path(values.out)
  if out.suffix != ".npz":
    raise UsageError(f"--out={out}: give a file that ends in .npz")

  from jaxflow.evaluation.data_statistics import StatsOptions, write_stats
  from jaxflow.parallel import processes

  processes.once(lambda: check_writable(out))
  write_stats(config, out, options_of(StatsOptions, values), say=say)
  return 0


COMMAND = Command(
  summary="write reference statistics of a data set, for evaluations",
  takes_config=True,
  define=_define,
  required={"out": "FILE.npz"},
  run=_run,
  notes="""\
Of the config, data and evaluation.network count.

Writes mean and covariance of a network's features of real data, with its name,
protocol and hash, and the features of the first evaluation.kept samples.""",
  example="""\
jaxflow stats --config=digits:mean_flow --out=digits.npz \\
    --config.evaluation.network.name=classifier""",
  resumable=True,
)
