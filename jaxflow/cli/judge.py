"""Commands that judge a run: evaluate, stats."""

import pathlib

from absl import flags

from jaxflow.commands.console import say
from jaxflow.commands.flags import (
  SAMPLING,
  changed_config,
  check_writable,
  define,
  read_changes,
  required,
  step_of,
  whole_numbers,
)
from jaxflow.errors import UsageError

# What of a run's config may be changed when it is judged.
JUDGING = (*SAMPLING, "evaluation", "data.raw_dir", "data.data_dir")


def evaluate(arguments: list[str]) -> int:
  """Compare samples with held-out data."""
  values = flags.FlagValues()
  for name in ("workdir", "step"):
    flags.DEFINE_string(name, None, "", flag_values=values)
  flags.DEFINE_list("nfe", [], "", flag_values=values)
  changes = read_changes(arguments, values)
  workdir = pathlib.Path(
    required(values.workdir, "workdir", "the folder of a run")
  )
  nfe = whole_numbers(values.nfe, "nfe")

  from jaxflow import commands, metrics

  rows = commands.evaluate(
    workdir,
    nfe=nfe,
    config=changed_config(workdir, changes, JUDGING),
    step=step_of(values.step),
    say=say,
  )
  say(metrics.table({_title(row): row["scores"] for row in rows}))
  for row in rows:
    if row["nfe"]:
      speed = row["samples_per_second"]
      say(f"{_title(row)}: {speed:,.0f} samples/s")
  return 0


def stats(arguments: list[str]) -> int:
  """Write the statistics of a data set."""
  from jaxflow import commands
  from jaxflow.config.flags import parse

  values = flags.FlagValues()
  flags.DEFINE_string("out", None, "", flag_values=values)
  options = define(commands.StatsOptions, values)
  config = parse(arguments, values)
  out = pathlib.Path(required(values.out, "out", "an .npz file"))
  if out.suffix != ".npz":
    raise UsageError(f"--out={out}: give a file that ends in .npz")

  from jaxflow.parallel import processes

  processes.once(lambda: check_writable(out))
  commands.write_stats(config, out, options(), say=say)
  return 0


def _title(row: dict) -> str:
  return f"NFE {row['nfe']}" if row["nfe"] else "flow"
