"""Runs of several seeds, each with a workdir of its own."""

import hashlib
import inspect
import json
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jaxflow
from experiments.runner.fits import Fits
from jaxflow.api import TrainedRun
from jaxflow.config import Config, sources
from jaxflow.errors import RunError
from jaxflow.types import LossOutput


def fit(
  config: Config,
  seeds: Sequence[int],
  folder: pathlib.Path,
  *,
  teacher: Fits | None = None,
  init: Fits | None = None,
  features: Fits | None = None,
  pairs: pathlib.Path | None = None,
  snapshots: Sequence[int] = (),
  loss: Callable[..., LossOutput] | None = None,
) -> Fits:
  """Train a config on several seeds, or find it trained.

  Seed i starts from, and is taught by, seed i of other runs, so repetitions are
  independent.

  Args:
    config: The config; its seed and the runs that it names are not read.
    seeds: The seeds [S].
    folder: Where all runs are kept.
    teacher: Runs that teach, of the same seeds.
    init: Runs from which to start, of the same seeds.
    features: Runs whose layers give features, of the same seeds.
    pairs: The folder of `make_pairs`.
    snapshots: After how many steps the networks are kept as well.
    loss: A loss of an experiment in place of the method's.

  Raises:
    RunError: If training broke off with every seed.
  """
  config = config.copy_and_resolve_references()
  every = math.gcd(config.train.steps, *snapshots)
  config.checkpoint.update(every=every, keep_every=every)
  config.train.sample_every = 0
  others = {"teacher": teacher, "init": init, "features": features}
  # The user's own runs, which a config file may name, are none of these.
  for name in others:
    if name in config:
      config[name].workdir = ""
  if "pairs" in config.data:
    config.data.pairs = ""
  place = folder / _name(
    config,
    {k: (x.folder.name, x.steps) for k, x in others.items() if x},
    pairs and (pairs.parent.name, pairs.name),
    loss and inspect.getsource(loss.__code__),
  )
  runs: dict[int, TrainedRun | None] = {}
  errors = []
  for seed in seeds:
    config.seed = seed
    for name, fits in others.items():
      if fits is not None:
        config[name].workdir = str(fits.workdir(seed))
    config.init.step = init and init.steps
    if pairs is not None:
      config.data.pairs = str(pairs / f"seed_{seed}")
    try:
      runs[seed] = _train(config, place / f"seed_{seed}", loss)
    except RunError as error:
      runs[seed] = None
      errors.append(error)
  if len(errors) == len(runs):
    raise errors[0]
  return Fits(folder=place, runs=runs)


def named_runs(config: Config) -> dict[str, str]:
  """Return the names of the runs that a config file builds on, by role.

  The folders that the files of `configs/` name are called after the methods of
  the runs in them.
  """
  return {
    role: pathlib.Path(source.workdir).name
    for role, source in sources(config).items()
    if source.workdir
  }


def _name(config: Config, *others: Any) -> str:
  """Return the name of a folder for a config and what else decides its runs."""
  identity = [config.to_dict(), *others]
  text = json.dumps(identity, sort_keys=True, default=str)
  digest = hashlib.sha256(text.encode()).hexdigest()
  return f"{config.method}-{digest[:16]}"


def _train(
  config: Config,
  workdir: pathlib.Path,
  loss: Callable[..., LossOutput] | None,
) -> TrainedRun:
  """Train a seed; raise KeyboardInterrupt if the user stops it."""
  run = jaxflow.train(config, workdir, loss=loss, log=lambda line: None)
  if not run.finished:
    raise KeyboardInterrupt
  return run
