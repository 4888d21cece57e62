"""`jaxflow stats`: write the statistics of a data set."""

import pathlib
from typing import Any

from jaxflow.commands.command import Command, Flag, Values
from jaxflow.commands.console import log
from jaxflow.commands.flags import check_writable, options_of
from jaxflow.errors import UsageError


def _options() -> tuple[type[Any], ...]:
  from jaxflow.evaluation.data_statistics import StatsOptions

  return (StatsOptions,)


def _run(values: Values, config: Any) -> None:
  out = pathlib.Path(values.out)
  if out.suffix != ".npz":
    raise UsageError(f"--out={out}: give a file that ends in .npz")

  from jaxflow.evaluation.data_statistics import StatsOptions, write_stats
  from jaxflow.parallel import processes

  processes.once(lambda: check_writable(out))
  write_stats(config, out, options_of(StatsOptions, values), say=log)


COMMAND = Command(
  summary="write reference statistics of a data set, for evaluations",
  takes_config=True,
  flags=(Flag("out", "an .npz file, for --config.evaluation.reference"),),
  options=_options,
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
