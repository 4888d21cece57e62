"""Write the statistics of a data set that samples are compared with."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from jaxflow import evaluation
from jaxflow.config import Config, resolve
from jaxflow.config.limits import check_limits
from jaxflow.errors import UsageError
from jaxflow.evaluation.networks import make_extractor
from jaxflow.evaluation.streams import (
  Partial,
  choose,
  collect,
  make_look,
  real_batches,
)
from jaxflow.parallel import processes, sharding
from jaxflow.runs import decoding
from jaxflow.runs.run import load_data


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatsOptions:
  """What to write statistics of.

  Attributes:
    split: "train" or "test".
    num: How many samples, a random choice; 0: all.
  """

  split: str = "train"
  num: int = 0


def write_stats(
  config: Config,
  out: pathlib.Path,
  options: StatsOptions,
  *,
  say: Callable[[str], None] = print,
) -> dict[str, Any]:
  """Write what a network sees of a data set, for `evaluation.reference`.

  Args:
    config: A config; its data and `evaluation.network` count.
    out: An .npz file; a classifier that is trained goes beside it.
    options: Which samples.
    say: Prints a line.

  Returns:
    What the file says of itself.

  Raises:
    UsageError: If a field is wrong, or the config names no network.
    RunError: If the file cannot be written.
  """
  check_limits(config)
  if options.split not in ("train", "test"):
    raise UsageError(f"--split={options.split}: give train or test")
  if options.num < 0 or options.num == 1:
    raise UsageError(f"--num={options.num}: give 0, for all, or 2 or more")
  source = processes.together(lambda: load_data(config, options.split))
  config = resolve(
    config, shape=source.shape, num_classes=source.num_classes, teacher=None
  )
  network = make_extractor(
    config.evaluation.network, config, out.parent, say=say
  )
  if network is None:
    raise UsageError(
      "evaluation.network.name='none': statistics are of what a network sees; "
      "name one, --config.evaluation.network.name=classifier for instance"
    )
  mesh = sharding.fitting_mesh(config.mesh)
  num = options.num or len(source)
  if num > len(source):
    raise UsageError(
      f"--num={num}: the {options.split} split has {len(source)} samples"
    )
  about = {
    "network": network.name,
    "protocol": network.protocol,
    "sha256": network.sha256,
    "data": config.data.name,
    "size": list(source.shape),
    "split": options.split,
    "seed": config.seed,
  }
  index = choose(source, num, config.seed)
  kept = config.evaluation.kept
  work = {**about, "num": num, "kept": kept, "config": config.data.to_dict()}
  partial = Partial(out.parent, work)
  drawn = collect(
    real_batches(source, index, config.evaluation.batch_size, mesh),
    make_look((network,), decoding.make_decoder(config), mesh),
    kept=kept,
    partial=partial,
  )
  if drawn is None:
    raise AssertionError("nothing interrupts looking at real data")
  processes.once(
    lambda: evaluation.write_statistics(out, drawn, network.name, about)
  )
  partial.remove()
  say(
    f"{out}: {num:,} samples of {config.data.name} ({options.split}), "
    f"{len(drawn.moments[network.name].mean)} numbers each by {network.name}, "
    f"protocol {network.protocol}"
  )
  return {**about, "num": num}
