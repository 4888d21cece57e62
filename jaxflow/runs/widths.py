"""Averages of any width, made of the power averages in checkpoints."""

import contextlib
import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow.errors import RunError, UsageError
from jaxflow.runs.run import Run
from jaxflow.training import posthoc
from jaxflow.training.checkpoints import Checkpoints
from jaxflow.training.state import TrainState
from jaxflow.types import PyTree

# Share of a profile that stored averages may miss.
_LARGEST_MISS = 0.05


def stored_template(template: TrainState, run: Run) -> TrainState:
  """Return shapes with the power averages in place of the only average."""
  (shapes,) = template.ema.values()
  ema = dict.fromkeys(run.power_averages, shapes)
  return dataclasses.replace(template, ema=ema)


def make(
  ema: str,
  run: Run,
  folder: pathlib.Path,
  template: TrainState,
  last: TrainState,
) -> TrainState:
  """Return a state with an average of any width as its only average.

  It is made of those of `last`, at whose update it ends, and of all earlier
  checkpoints.

  Args:
    ema: Its name, "width=W".
    run: The run.
    folder: The checkpoints.
    template: The shapes of `last`.
    last: The state with its power averages.
  """
  gammas = run.power_averages
  counts = dataclasses.replace(template, ema={}, frozen={})
  averages = dataclasses.replace(template, frozen={})

  def restored(shapes, step):
    (state, _) = saved.restore(shapes, step, partial=True) or (None, None)
    assert state
    return state

  with contextlib.closing(Checkpoints(folder, read_only=True)) as saved:
    updates = {}
    for step in saved.steps():
      if step < int(last.step):
        with contextlib.suppress(RunError):  # Damaged; a warning says so.
          updates[step] = int(restored(counts, step).updates)
    # Before the first update there is nothing to average.
    updates = {k: n for k, n in updates.items() if n}
    shares = iter(_shares(ema, gammas, [*updates.values(), int(last.updates)]))
    total = None
    for step in updates:
      total = _add(total, restored(averages, step).ema, next(shares))
  return dataclasses.replace(
    last, ema={ema: _add(total, last.ema, next(shares))}
  )


def _shares(
  ema: str, gammas: dict[str, float], updates: list[int]
) -> list[dict[str, float]]:
  """Return the share of each average, by number of the update and name."""
  law = posthoc.law_of(ema)
  assert law
  if not updates[-1]:
    raise UsageError(f"ema={ema!r}: the checkpoint is from before training")
  stored = posthoc.Profile(
    np.repeat(updates, len(gammas)), np.tile([*gammas.values()], len(updates))
  )
  wanted = posthoc.Profile(updates[-1], law.gamma)
  shares, miss = posthoc.weights(stored, wanted)
  if miss > _LARGEST_MISS:
    raise UsageError(
      f"ema={ema!r}: {len(updates)} checkpoints of {', '.join(gammas)} miss "
      f"{miss:.0%} of this average: give a width nearer to theirs, or train "
      "with another power average and a smaller checkpoint.keep_every"
    )
  # Networks that stand still must be their own average.
  rows = (shares / shares.sum()).reshape(-1, len(gammas)).tolist()
  return [dict(zip(gammas, row, strict=True)) for row in rows]


@jax.jit
def _add(total: PyTree, averages: dict[str, PyTree], shares: PyTree) -> PyTree:
  """Add averages by their shares to a sum, which begins as None."""
  for name, average in averages.items():
    part = jax.tree.map(lambda x, share=shares[name]: share * x, average)
    total = part if total is None else jax.tree.map(jnp.add, total, part)
  return total
