"""Networks of several seeds, trained from one config.

`fit` is the training step of `jaxflow train`, without its folders: one program
for all seeds, which small networks run side by side (`jax.vmap`) and large ones
one after the other. Seed i starts from, and is taught by, seed i of other fits,
so repetitions are independent. What has been trained is kept in a folder.
"""

import dataclasses
import hashlib
import inspect
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from experiments.runner import advance, keeping
from experiments.runner.fits import Fits
from jaxflow import data
from jaxflow.config import Config, resolve
from jaxflow.parallel import sharding
from jaxflow.runs.initial_weights import initial_parameters
from jaxflow.runs.inputs import Inputs, make_batches
from jaxflow.runs.run import Run, load_data
from jaxflow.training.loop import steps_per_dispatch
from jaxflow.training.state import TrainState
from jaxflow.types import LossOutput

# Numbers of random streams beside that of the network's parameters, as those of
# a run of `jaxflow train`.
_FEATURES, _DISCRIMINATOR = 1, 2


def fit(
  config: Config,
  seeds: Sequence[int],
  *,
  folder: pathlib.Path | None = None,
  teacher: Fits | None = None,
  init: Fits | None = None,
  features: Fits | None = None,
  pairs: Sequence[data.Dataset] | None = None,
  source: data.Source | None = None,
  snapshots: Sequence[int] = (),
  together: bool = True,
  loss: Callable[..., LossOutput] | None = None,
) -> Fits:
  """Train a config on several seeds.

  Args:
    config: As `jaxflow.config.default_config` makes it; its seed is not read.
    seeds: The seeds [S].
    folder: Where trained networks are kept; None to keep none.
    teacher: Networks that teach, of the same seeds.
    init: Networks from which to start, of the same seeds.
    features: Networks whose layers give features, of the same seeds.
    pairs: Noise and samples, one set a seed.
    source: Data to train on; default: what the config names.
    snapshots: After how many steps the networks are kept as well.
    together: Whether all seeds are one vmapped program. Without, one program
      runs them in turn: for networks that fill the machine alone, and for
      losses with a discriminator, of which vmap would compute every branch.
    loss: A loss of an experiment in place of the method's, with its arguments.
  """
  real = load_data(config, "train") if source is None else source
  config = resolve(
    config,
    shape=real.shape,
    num_classes=real.num_classes,
    teacher=None if teacher is None else teacher.config,
    features=None if features is None else features.config,
    pairs=None if pairs is None else "given",
  )
  others = [x for x in (teacher, init, features) if x is not None]
  if folder is not None and not all(x.key for x in others):
    raise ValueError(
      "networks that were changed by hand cannot be kept: no folder"
    )
  identity = {
    "config": config.to_dict(),
    "seeds": list(seeds),
    "others": [x and x.key for x in (teacher, init, features)],
    "pairs": [_digest(p.data, p.noise) for p in pairs or ()],
    "data": ""
    if source is None
    else _digest(source.take(np.arange(len(source)))),
    "snapshots": list(snapshots),
  }
  if loss is not None:
    identity["loss"] = inspect.getsource(loss.__code__)
  key = hashlib.sha256(
    json.dumps(identity, sort_keys=True, default=str).encode()
  ).hexdigest()[:16]
  run = _with_loss(Run.of(config), loss)
  first = [
    _first_state(
      run,
      seed,
      _at(init, i),
      teacher=_at(teacher, i),
      features=_at(features, i),
    )
    for i, seed in enumerate(seeds)
  ]
  path = None if folder is None else folder / f"{config.method}-{key}.npz"
  if path is not None and path.exists():
    return keeping.read(path, run, tuple(seeds), first, key, snapshots)
  chunk = _chunk(config, snapshots)
  streams = []
  for i, seed in enumerate(seeds):
    own = config.copy_and_resolve_references()
    own.seed = seed
    given = Inputs(real, None if pairs is None else pairs[i], None)
    streams.append(make_batches(own, given, steps=chunk))
  train = advance.together if together else advance.in_turn
  kept, log, seconds = train(run, seeds, first, streams, chunk, snapshots)
  fits = Fits(
    run=run,
    seeds=tuple(seeds),
    states=kept.pop(config.train.steps),
    log=log,
    seconds=seconds,
    key=key,
    earlier=kept,
  )
  if path is not None:
    keeping.write(path, fits)
  return fits


def _with_loss(run: Run, loss: Callable[..., LossOutput] | None) -> Run:
  """Return a run that is trained by another loss, if one is given."""
  if loss is None:
    return run
  method = dataclasses.replace(run.model.method, loss=loss)
  model = dataclasses.replace(run.model, method=method)
  return dataclasses.replace(run, model=model)


def _chunk(config: Config, snapshots: Sequence[int]) -> int:
  """Return the steps of a dispatch, a divisor of all boundaries."""
  options = config.train
  return steps_per_dispatch(
    options.steps_per_dispatch, options.steps, *snapshots
  )


def _first_state(
  run: Run,
  seed: int,
  init: tuple[Run, TrainState] | None,
  **others: tuple[Run, TrainState] | None,
) -> TrainState:
  """Return the state from which a seed starts."""
  config = run.model.config
  given = {
    name: other[0].select(other[1], config[name].ema, f"{name}.ema")
    for name, other in others.items()
    if other is not None
  }
  key = jax.random.key(seed)
  frozen = run.roles.frozen(jax.random.fold_in(key, _FEATURES), given)
  if init is not None:
    template = run.template(sharding.make_mesh())
    params = initial_parameters(run, template, init)
  elif "teacher" in given and config.teacher.init_student:
    params = given["teacher"]
  else:
    params = run.model.network.init(key)
  return run.init(params, frozen, jax.random.fold_in(key, _DISCRIMINATOR))


def _at(fits: Fits | None, i: int) -> tuple[Run, TrainState] | None:
  return None if fits is None else (fits.run, fits.states[i])


def _digest(*arrays: Any) -> str:
  leaves = jax.tree.leaves(arrays)
  return hashlib.sha256(
    b"".join(np.asarray(x).tobytes() for x in leaves)
  ).hexdigest()
