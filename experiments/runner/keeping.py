"""Files of trained networks."""

import dataclasses
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments.runner.fits import Fits
from jaxflow.files import save_arrays
from jaxflow.runs.run import Run
from jaxflow.training.state import TrainState

_KEPT = ("params", "ema", "step", "skipped", "frozen")


def _part(state: TrainState) -> list:
  return [getattr(state, name) for name in _KEPT]


def write(path: pathlib.Path, fits: Fits) -> None:
  """Keep states and log in one file."""
  every = {fits.config.train.steps: fits.states, **fits.earlier}
  arrays = {
    f"{steps}/{i}/{n}": np.asarray(x)
    for steps, states in every.items()
    for i, state in enumerate(states)
    for n, x in enumerate(jax.tree.leaves(_part(state)))
  }
  arrays |= {f"log/{name}": values for name, values in fits.log.items()}
  save_arrays(path, {"seconds": fits.seconds, **arrays})


def read(
  path: pathlib.Path,
  run: Run,
  seeds: tuple[int, ...],
  first: Sequence[TrainState],
  key: str,
  snapshots: Sequence[int],
) -> Fits:
  """Return what `write` has kept.

  Args:
    path: The file.
    run: The run of the networks.
    seeds: Their seeds.
    first: States before training, for their structure.
    key: Digest of all that decides them.
    snapshots: After how many steps they were kept as well.
  """
  with np.load(path) as file:

    def state_at(steps, i, state):
      shape = jax.tree.structure(_part(state))
      leaves = [
        jnp.asarray(file[f"{steps}/{i}/{n}"]) for n in range(shape.num_leaves)
      ]
      kept = jax.tree.unflatten(shape, leaves)
      return dataclasses.replace(state, **dict(zip(_KEPT, kept, strict=True)))

    last = run.model.config.train.steps
    states = {
      steps: [state_at(steps, i, state) for i, state in enumerate(first)]
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
