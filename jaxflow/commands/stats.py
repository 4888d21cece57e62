"""`jaxflow stats`: write the statistics of a data set."""

import pathlib
from typing import Any

from jaxflow.commands.command import Command, Flag, Values
from jaxflow.commands.console import log
from jaxflow.commands.flags import check_writable, options_of, picture_target


def _options() -> tuple[type[Any], ...]:
  from jaxflow.evaluation.data_statistics import StatsOptions

  return (StatsOptions,)


def _run(values: Values, config: Any) -> None:
  out = pathlib.Path(values.out)
  pictures = picture_target(out, values.uint8, (".npz",))

  from jaxflow.evaluation import data_statistics
  from jaxflow.parallel import processes

  if out.suffix == ".npz":
    processes.once(lambda: check_writable(out))
  options = options_of(data_statistics.StatsOptions, values)
  if pictures:
    data_statistics.write_real_pictures(config, out, options, log=log)
  else:
    data_statistics.write_stats(config, out, options, log=log)


COMMAND = Command(
  summary="write reference statistics of a data set, or its pictures",
  takes_config=True,
  flags=(
    Flag(
      "out",
      "an .npz file, for --config.evaluation.reference; or a folder, which "
      "gets the pictures themselves, a PNG file each",
    ),
    Flag(
      "uint8",
      "keep pictures as other evaluators read them: `arr_0`, "
      "bytes [N, H, W, 3], and the labels `arr_1`",
      False,
    ),
  ),
  options=_options,
  required={"out": "FILE.npz"},
  run=_run,
  notes="""\
Of the config, data and evaluation.network count.

Writes mean and covariance of a network's features of real data, with its name,
protocol and hash, and the features of the first evaluation.kept samples.

Pictures are written as `jaxflow sample` writes samples, without a network.""",
  example="""\
jaxflow stats --config=digits:mean_flow --out=digits.npz \\
    --config.evaluation.network.name=classifier""",
  resumable=True,
)
