"""Training steps for several seeds: side by side, or one after the other."""

import time
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow.runs.run import Run
from jaxflow.training.state import TrainState
from jaxflow.training.step import make_train_step
from jaxflow.types import Batch

# States by their number of steps, metrics [S, dispatches], seconds.
Trained = tuple[dict[int, list[TrainState]], dict[str, np.ndarray], float]


def _step(run: Run) -> Callable:
  """Return `(seed, state, batch) -> (state, metrics)`."""
  loss_fn = run.loss_fn()

  def step(seed, state, batch):
    return make_train_step(
      loss_fn, run.optimizer, run.emas, seed=seed, opponent=run.opponent
    )(state, batch)

  return step


def together(
  run: Run,
  seeds: Sequence[int],
  states: Sequence[TrainState],
  streams: Sequence[Iterator[Batch]],
  chunk: int,
  snapshots: Sequence[int],
) -> Trained:
  """Train all seeds in one program.

  Args:
    run: The run.
    seeds: The seeds.
    states: The first state of each.
    streams: The batches of each, `chunk` at a time.
    chunk: Steps a dispatch.
    snapshots: After how many steps states are kept, beside the last ones.

  Returns:
    States by their number of steps, metrics, and the seconds after the first
    dispatch, which compiles.
  """
  step = jax.jit(jax.vmap(_step(run)), donate_argnums=1)
  state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
  numbers = jnp.asarray(seeds, jnp.uint32)
  kept: dict[int, list[TrainState]] = {}
  log, began = [], 0.0
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


def in_turn(
  run: Run,
  seeds: Sequence[int],
  states: Sequence[TrainState],
  streams: Sequence[Iterator[Batch]],
  chunk: int,
  snapshots: Sequence[int],
) -> Trained:
  """Train one seed after the other with one program, as `together` does."""
  step = jax.jit(_step(run), donate_argnums=1)
  steps = run.model.config.train.steps
  kept: dict[int, list[TrainState]] = {}
  logs, seconds = [], 0.0
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
