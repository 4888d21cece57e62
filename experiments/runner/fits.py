"""Networks of several seeds, trained from one config.

`fit` is the training step of `jaxflow train`, without its folders: one program
for all seeds, which small networks run side by side (`jax.vmap`) and large ones
one after the other. Seed i starts from, and is taught by, seed i of other fits,
so repetitions are independent. What has been trained is kept in a folder.
"""

import dataclasses
import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow import data
from jaxflow.commands.initial import initial_parameters
from jaxflow.commands.inputs import Inputs, make_batches
from jaxflow.commands.sample import class_labels, drawer
from jaxflow.config import Config, resolve, update
from jaxflow.evaluation.files import replace_file
from jaxflow.runs import Run, load_data
from jaxflow.training import sharding
from jaxflow.training.loop import steps_per_dispatch
from jaxflow.training.state import TrainState
from jaxflow.training.step import make_train_step
from jaxflow.types import LossOutput, ModelFn, PyTree

# Numbers of random streams beside that of the network's parameters, as those of
# a run of `jaxflow train`.
_FEATURES, _DISCRIMINATOR = 1, 2
_KEPT = ("params", "ema", "step", "skipped", "frozen")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fits:
  """Trained networks, one a seed.

  Attributes:
    run: The run of their resolved config.
    seeds: Their seeds [S].
    states: Their last states; parameters, averages, frozen networks and
      counters.
    log: Metrics [S, dispatches] by name, NaN where not measured.
    seconds: What training took, compilation left out.
    key: Digest of all that decides them.
    earlier: States after fewer steps, by their number.
    draws: Samplers that are compiled, by network calls.
  """

  run: Run
  seeds: tuple[int, ...]
  states: Sequence[TrainState]
  log: Mapping[str, np.ndarray]
  seconds: float
  key: str
  earlier: Mapping[int, Sequence[TrainState]] = dataclasses.field(
    default_factory=dict
  )
  draws: dict[int, Callable] = dataclasses.field(default_factory=dict)

  @property
  def config(self) -> Config:
    """The resolved config."""
    return self.run.model.config

  @property
  def diverged(self) -> np.ndarray:
    """Whether parameters are not finite, or every tenth step was skipped."""
    return np.array([_broken(state) for state in self.states])

  def at(self, steps: int) -> Self:
    """Returns the networks as they were after so many steps.

    Args:
      steps: The number of all steps, or one of `fit`'s `snapshots`.
    """
    if steps == self.config.train.steps:
      return self
    return dataclasses.replace(
      self,
      states=self.earlier[steps],
      key=f"{self.key}-{steps}",
      earlier={},
    )

  def changed(self, fields: Mapping[str, Any]) -> Self:
    """Returns the same networks, sampled in another way.

    Args:
      fields: Fields of the config to change, as nested mappings.
    """
    config = self.config.copy_and_resolve_references()
    with config.unlocked():
      update(config, fields)
    return dataclasses.replace(self, run=Run.of(config), draws={})

  def mapped(self, function: Callable[[PyTree], PyTree]) -> Self:
    """Returns networks with other parameters: rounded, for instance.

    Args:
      function: Makes parameters of parameters, of the same shapes and types.
    """
    states = [
      dataclasses.replace(
        state,
        params=function(state.params),
        ema={name: function(value) for name, value in state.ema.items()},
      )
      for state in self.states
    ]
    return dataclasses.replace(self, states=states)

  def params(self, average: str | None = None) -> list[PyTree]:
    """Returns the parameters of every seed.

    Args:
      average: Name of an EMA, or "online"; default: the one that is sampled.
    """
    name = average or self.config.sample.ema
    return [self.run.select(x, name, "average") for x in self.states]

  def sample(
    self, num: int, nfe: int, *, label: int | None = None, seed: int = 0
  ) -> np.ndarray:
    """Draws samples of every seed, [S, num, ...], each from its own noise.

    Args:
      num: Samples a seed.
      nfe: Network calls a sample.
      label: The class of all; default: classes in turn.
      seed: Of the noise, beside the seed of the network.
    """
    if nfe not in self.draws:
      self.draws[nfe] = drawer(self.run, nfe, "nfe", sharding.make_mesh())
    draw = self.draws[nfe]
    labels = class_labels(self.run.model.num_classes, num, label)
    keys = [
      jax.random.fold_in(jax.random.key(seed), number) for number in self.seeds
    ]
    found = [
      draw(state, key, num, labels)
      for state, key in zip(self.states, keys, strict=True)
    ]
    return np.stack(found)

  def networks(self, average: str | None = None) -> list[ModelFn]:
    """Returns the network of every seed, its parameters as arguments."""
    apply = self.run.model.network.apply
    return [
      jax.tree_util.Partial(apply, params) for params in self.params(average)
    ]

  def velocities(self) -> list[ModelFn]:
    """Returns the velocity of every seed, as the run is sampled."""
    velocity_of = self.run.model.sampled()

    def velocity(params, *inputs):
      return velocity_of(params)(*inputs)

    return [jax.tree_util.Partial(velocity, x) for x in self.params()]


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
  """Trains a config on several seeds.

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
  identity = {
    "config": config.to_dict(),
    "seeds": list(seeds),
    "others": [x and x.key for x in (teacher, init, features)],
    "pairs": [_digest(p.data, p.noise) for p in pairs or ()],
    "data": "" if source is None else _digest(source.take(np.arange(64))),
    "snapshots": list(snapshots),
  }
  if loss is not None:
    identity["loss"] = f"{loss.__module__}.{loss.__qualname__}"
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
    return _read(path, run, tuple(seeds), first, key, snapshots)
  chunk = _chunk(config, snapshots)
  streams = []
  for i, seed in enumerate(seeds):
    own = config.copy_and_resolve_references()
    own.seed = seed
    given = Inputs(real, None if pairs is None else pairs[i], None)
    streams.append(make_batches(own, given, steps=chunk))
  train = _together if together else _in_turn
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
    _write(path, fits)
  return fits


def _with_loss(run: Run, loss: Callable[..., LossOutput] | None) -> Run:
  """Returns a run that is trained by another loss, if one is given."""
  if loss is None:
    return run
  method = dataclasses.replace(run.model.method, loss=loss)
  model = dataclasses.replace(run.model, method=method)
  return dataclasses.replace(run, model=model)


def _chunk(config: Config, snapshots: Sequence[int]) -> int:
  """Returns the steps of a dispatch, a divisor of all boundaries."""
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
  """Returns the state from which a seed starts."""
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


def _step(run: Run) -> Callable:
  """Returns `(seed, state, batch) -> (state, metrics)`."""
  loss_fn = run.loss_fn()

  def step(seed, state, batch):
    return make_train_step(
      loss_fn, run.optimizer, run.emas, seed=seed, opponent=run.opponent
    )(state, batch)

  return step


def _together(run, seeds, states, streams, chunk, snapshots):
  """Trains all seeds in one program; returns states, log, seconds."""
  step = jax.jit(jax.vmap(_step(run)), donate_argnums=1)
  state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
  numbers = jnp.asarray(seeds, jnp.uint32)
  kept, log, began = {}, [], 0.0
  steps = run.model.config.train.steps
  for done in range(chunk, steps + 1, chunk):
    batch = jax.tree.map(lambda *x: np.stack(x), *map(next, streams))
    state, metrics = step(numbers, state, batch)
    log.append(metrics)
    if done in (steps, *snapshots):
      host = jax.device_get(state)
      kept[done] = [
        jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), host)
        for i in range(len(seeds))
      ]
    if done == chunk:
      # The first dispatch compiles.
      jax.block_until_ready(state)
      began = time.perf_counter()
  jax.block_until_ready(state)
  seconds = time.perf_counter() - began
  joined = {k: np.stack([m[k] for m in log], axis=1) for k in log[0]}
  return kept, joined, seconds


def _in_turn(run, seeds, states, streams, chunk, snapshots):
  """Trains one seed after the other with one program."""
  step = jax.jit(_step(run), donate_argnums=1)
  steps = run.model.config.train.steps
  kept, logs, seconds = {}, [], 0.0
  for seed, state, stream in zip(seeds, states, streams, strict=True):
    # Parameters of a teacher may be in two places of a state that is donated.
    state = jax.tree.map(jnp.copy, state)
    log, began = [], time.perf_counter()
    for done in range(chunk, steps + 1, chunk):
      state, metrics = step(jnp.uint32(seed), state, next(stream))
      log.append(metrics)
      if done in (steps, *snapshots):
        kept.setdefault(done, []).append(jax.tree.map(jnp.copy, state))
      if done == chunk and not logs:
        jax.block_until_ready(state)
        began = time.perf_counter()
    jax.block_until_ready(state)
    seconds += time.perf_counter() - began
    logs.append({k: np.stack([m[k] for m in log]) for k in log[0]})
  joined = {k: np.stack([log[k] for log in logs]) for k in logs[0]}
  return kept, joined, seconds


def _broken(state: TrainState) -> bool:
  finite = all(
    bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(state.params)
  )
  return not finite or int(state.skipped) * 10 > int(state.step)


def _part(state: TrainState) -> list:
  return [getattr(state, name) for name in _KEPT]


def _write(path: pathlib.Path, fits: Fits) -> None:
  """Keeps states and log in one file."""
  every = {fits.config.train.steps: fits.states, **fits.earlier}
  arrays = {
    f"{steps}/{i}/{n}": np.asarray(x)
    for steps, states in every.items()
    for i, state in enumerate(states)
    for n, x in enumerate(jax.tree.leaves(_part(state)))
  }
  arrays |= {f"log/{name}": values for name, values in fits.log.items()}

  def write(part):
    with open(part, "wb") as file:
      np.savez(file, allow_pickle=False, seconds=fits.seconds, **arrays)

  replace_file(path, write)


def _read(path, run, seeds, first, key, snapshots) -> Fits:
  """Returns what `_write` has kept."""
  with np.load(path) as file:

    def read(steps, i, state):
      shape = jax.tree.structure(_part(state))
      leaves = [
        jnp.asarray(file[f"{steps}/{i}/{n}"]) for n in range(shape.num_leaves)
      ]
      kept = jax.tree.unflatten(shape, leaves)
      return dataclasses.replace(state, **dict(zip(_KEPT, kept, strict=True)))

    last = run.model.config.train.steps
    states = {
      steps: [read(steps, i, state) for i, state in enumerate(first)]
      for steps in (last, *snapshots)
    }
    log = {
      name.removeprefix("log/"): file[name]
      for name in file.files
      if name.startswith("log/")
    }
    return Fits(
      run=run,
      seeds=seeds,
      states=states.pop(last),
      log=log,
      seconds=float(file["seconds"]),
      key=key,
      earlier=states,
    )


def _digest(*arrays: Any) -> str:
  leaves = jax.tree.leaves(arrays)
  return hashlib.sha256(
    b"".join(np.asarray(x).tobytes() for x in leaves)
  ).hexdigest()
