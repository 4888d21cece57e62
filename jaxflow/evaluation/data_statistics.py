"""Write the statistics of a data set, as a reference for evaluations."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxflow import config as config_lib
from jaxflow import data
from jaxflow.errors import UsageError
from jaxflow.evaluation import streams
from jaxflow.evaluation.networks import make_extractor
from jaxflow.evaluation.statistics import write_statistics
from jaxflow.parallel import processes, sharding
from jaxflow.plans import DataPlan
from jaxflow.runs import decoding
from jaxflow.runs.opening import load_data
from jaxflow.runs.options import option
from jaxflow.runs.picture_files import (
  Pictures,
  check_pictures,
  write_pictures,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatsOptions:
  """Which samples to describe; the command line has a flag for each field."""

  split: str = option("train", "train or test")
  num: int = option(0, "how many samples, a random choice (default: all)")


def write_stats(
  config: config_lib.Config,
  out: pathlib.Path,
  options: StatsOptions,
  *,
  log: Callable[[str], None] = print,
) -> dict[str, Any]:
  """Write what the network of `evaluation.network` sees of a data set.

  The file is one for `evaluation.reference`; a classifier that is trained goes
  beside it. Return the description in the file.
  """
  data_plan, source, num = _opened(config, options)
  plan = config_lib.evaluation_plan(config)
  seed = config_lib.seed_of(config)
  network = make_extractor(plan, data_plan, out.parent, log=log)
  if network is None:
    raise UsageError(
      "evaluation.network.name='none': statistics are of what a network sees; "
      "name one, --config.evaluation.network.name=classifier for instance"
    )
  mesh = sharding.fitting_mesh(config_lib.mesh_axes(config))
  about = {
    "network": network.name,
    "protocol": network.protocol,
    "sha256": network.sha256,
    "data": data_plan.name,
    "size": list(source.shape),
    "split": options.split,
    "seed": seed,
  }
  index = streams.choose(streams.whole(source), num, seed)
  work = {**about, "num": num, "kept": plan.kept, "config": str(data_plan)}
  work["identity"] = processes.together(lambda: streams.identity(source))
  partial = streams.Partial(out.parent, work)
  drawn = streams.collect(
    streams.real_batches(source, index, plan.batch_size, mesh),
    streams.make_look((network,), decoding.make_decoder(data_plan), mesh),
    kept=plan.kept,
    partial=partial,
  )
  assert drawn is not None, "nothing interrupts looking at real data"
  processes.once(lambda: write_statistics(out, drawn, network.name, about))
  partial.remove()
  log(
    f"{out}: {num:,} samples of {data_plan.name} ({options.split}), "
    f"{len(drawn.moments[network.name].mean)} numbers each by {network.name}, "
    f"protocol {network.protocol}"
  )
  return {**about, "num": num}


def _opened(
  config: config_lib.Config, options: StatsOptions
) -> tuple[DataPlan, data.Source, int]:
  """Return the resolved data of a config, a split, and how many samples."""
  config_lib.check_limits(config)
  if options.split not in ("train", "test"):
    raise UsageError(f"split={options.split}: give train or test")
  if options.num < 0 or options.num == 1:
    raise UsageError(f"num={options.num}: give 0, for all, or 2 or more")
  plan = config_lib.data_plan(config)
  source = processes.together(lambda: load_data(plan, options.split))
  seen = {"shape": source.shape, "num_classes": source.num_classes}
  config_lib.resolve(config, **seen, teacher=None)  # It refuses others.
  num = options.num or len(source)
  if num > len(source):
    raise UsageError(
      f"num={num}: the {options.split} split has {len(source)} samples"
    )
  scaling = data.scaling_of(source)
  return dataclasses.replace(plan, **seen, scaling=scaling), source, num


def write_real_pictures(
  config: config_lib.Config,
  out: pathlib.Path,
  options: StatsOptions,
  *,
  log: Callable[[str], None] = print,
) -> None:
  """Write the pictures of a split, as `write_pictures` writes samples.

  They stand in the order of the split.
  """
  plan, source, num = _opened(config, options)
  check_pictures(plan, out)
  seed = config_lib.seed_of(config)
  index = np.arange(len(source))
  if num < len(source):
    index = np.sort(streams.choose(streams.whole(source), num, seed))
  label = streams.labels_of(source, index)
  conditions = data.conditions_of(source)
  if label is not None and conditions is not None:
    label = conditions.restore(label)
  elif label is not None:
    label = data.known_labels(label, source.num_classes)
  picture = processes.together(lambda: decoding.make_picture(plan))

  def draw(first: int, size: int) -> np.ndarray:
    rows = index[np.arange(first, first + size) % num]
    return picture(source.take(rows)["data"])

  pictures = Pictures(
    num=num,
    size=config_lib.evaluation_plan(config).batch_size,
    draw=draw,
    label=label,
    about={
      "data": plan.name,
      "split": options.split,
      "seed": seed,
      "identity": processes.together(lambda: list(streams.identity(source))),
    },
    origin={"data": plan.name},
  )
  write_pictures(out, pictures, log)
  log(f"{out}: {num:,} pictures of {plan.name} ({options.split})")
