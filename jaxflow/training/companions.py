"""Training of other networks beside the student, jointly or in turns.

A companion is a network with a loss and an optimizer of its own: the
discriminator of a generator, for one. Before its first step the student learns
without it, and the terms of its loss that need it are left out. From then on
the two take turns, or both learn in every step. Turns are counted in rounds of
1 + n steps, which begin at multiples of their length: the student learns in the
first step, the companion in the n others. Where several companions take turns,
the round is that of the largest n, and one with a smaller n rests at its end.
Each step takes a batch. One that does not learn keeps its parameters, optimizer
and averages.

References:
  Kim et al. 2023 (arXiv:2310.02279): alternating, after a first stage without.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxflow.training.gradients import LossFn, apply_gradient, mean_gradient
from jaxflow.training.state import Companion, TrainState
from jaxflow.types import Array, Batch, FlowMap, LossOutput, PyTree

Turns = Literal["alternate", "joint"]
# (its parameters, frozen parameters by role) -> arguments of losses.
ArgumentsFn = Callable[[PyTree, Mapping[str, PyTree]], Mapping[str, Any]]
# A proposed update: fields of the state, metrics, whether all is finite.
Move = tuple[dict[str, Any], dict[str, Array], Array]
MoveFn = Callable[[TrainState, Array, Batch], Move]

# Draws of companions differ from those of all micro-batches.
_STREAM = 2**31 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rhythm:
  """When a companion learns.

  Attributes:
    start: Step from which on it takes part.
    turns: "alternate" or "joint".
    ratio: Its steps to each of the student's, where they alternate.
  """

  start: int = 0
  turns: Turns = "alternate"
  ratio: int = 1

  @property
  def rest(self) -> int:
    """Steps of a round in which the student does not learn."""
    return self.ratio if self.turns == "alternate" else 0

  def learns(self, place: int) -> bool:
    """Return whether it learns at a place of a round."""
    return self.turns == "joint" or 1 <= place <= self.ratio


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learner:
  """How a companion learns.

  Attributes:
    loss_fn: Its loss, of `(its parameters, state, key, batch)`.
    optimizer: Its optimizer.
    rhythm: When it learns.
  """

  loss_fn: LossFn
  optimizer: optax.GradientTransformation
  rhythm: Rhythm = Rhythm()

  def init(self, params: PyTree) -> Companion:
    """Return its first state."""
    return Companion(params=params, opt_state=self.optimizer.init(params))


Learners = Mapping[str, Learner]


def companion_loss_fn(
  loss: Callable[..., LossOutput],
  arguments_fn: ArgumentsFn,
  generator_fn: Callable[[TrainState], FlowMap],
  **options: Any,
) -> LossFn:
  """Bind a companion's loss to its network and the student.

  Args:
    loss: It has the arguments `key`, `batch`, `generator`, those that
      `arguments_fn` makes, and the options.
    arguments_fn: Makes arguments of the companion's parameters.
    generator_fn: Makes the student's flow map of the state.
    **options: Other arguments of the loss.

  Returns:
    `(companion's parameters, state, key, batch) -> (loss [B], metrics)`.
  """

  def loss_fn(params, state, key, batch):
    return loss(
      key=key,
      batch=batch,
      generator=generator_fn(state),
      **arguments_fn(params, state.frozen),
      **options,
    )

  return loss_fn


def count_updates(
  steps: int, rhythms: Mapping[str, Rhythm]
) -> tuple[int, dict[str, int]]:
  """Count the updates of the student and of every companion in a training.

  Example:
    >>> count_updates(10, {"critic": Rhythm(ratio=4)})
    (2, {'critic': 8})
  """
  student, theirs = 0, dict.fromkeys(rhythms, 0)
  for begin, end, present in _phases(rhythms, steps):
    length = _round(present)

    def count(place, begin=begin, end=end, length=length):
      # Numbers in [begin, end) that are `place` beyond a multiple of `length`.
      return (place - begin) // length - (place - end) // length

    student += count(0)
    for name, rhythm in present.items():
      places = (k for k in range(length) if rhythm.learns(k))
      theirs[name] += sum(map(count, places))
  return student, theirs


def take_turns(
  student: MoveFn,
  learners: Learners,
  state: TrainState,
  key: Array,
  batch: Batch,
) -> Move:
  """Update the networks whose turn it is.

  Returns:
    New fields of the state, metrics with NaN where nothing was measured, and
    whether all of it is finite.
  """
  streams = {name: _STREAM - i for i, name in enumerate(learners)}

  def movement(present: tuple[str, ...], movers: tuple[str, ...], leads: bool):
    def move(state, key, batch):
      known = {name: state.companions[name] for name in present}
      given = dataclasses.replace(state, companions=known)
      new, metrics, finite = {}, {}, jnp.array(True)
      if leads:
        new, metrics, finite = student(given, key, batch)
      moved = dict(state.companions)
      for name in movers:
        its_key = jax.random.fold_in(key, streams[name])
        moved[name], more, well = _moved(
          name, learners[name], given, its_key, batch
        )
        metrics, finite = metrics | more, finite & well
      return new | ({"companions": moved} if movers else {}), metrics, finite

    # Jitted, so that its traces for shapes are those that are compiled.
    return jax.jit(move)

  # The moves that differ, and for every phase the move of each of its places.
  wanted, places = [], []
  rhythms = {name: learner.rhythm for name, learner in learners.items()}
  phases = [*_phases(rhythms)]
  for _, _, present in phases:
    row = []
    for place in range(_round(present)):
      movers = tuple(k for k, x in present.items() if x.learns(place))
      move = tuple(present), movers, place == 0
      if move not in wanted:
        wanted.append(move)
      row.append(wanted.index(move))
    places.append(row)
  turn = jnp.array(places[0], jnp.int32)[state.step % len(places[0])]
  for (begin, _, _), row in zip(phases[1:], places[1:], strict=True):
    later = jnp.array(row, jnp.int32)[state.step % len(row)]
    turn = jnp.where(state.step < begin, turn, later)
  moves = _with_equal_outputs(
    [movement(*move) for move in wanted], state, key, batch
  )
  return jax.lax.switch(turn, moves, state, key, batch)


def _moved(
  name: str, learner: Learner, state: TrainState, key: Array, batch: Batch
) -> tuple[Companion, dict[str, Array], Array]:
  """Propose the update of one companion."""
  own = state.companions[name]
  gradient, metrics, _ = mean_gradient(
    learner.loss_fn, own.params, state, key, batch
  )
  norm = optax.tree.norm(gradient)
  finite = jnp.isfinite(metrics["loss"] + norm)
  params, opt_state, _ = apply_gradient(
    learner.optimizer, gradient, own.opt_state, own.params
  )
  named = {k: v for k, v in metrics.items() if k not in ("loss", "raw")}
  named[f"{name}_loss"] = metrics["loss"]
  named[f"{name}_gradient_norm"] = norm
  return Companion(params=params, opt_state=opt_state), named, finite


def _phases(
  rhythms: Mapping[str, Rhythm], steps: int | None = None
) -> list[tuple[int, int, dict[str, Rhythm]]]:
  """Return first step, end and companions of the phases of a training."""
  last = 2**31 if steps is None else steps
  begins = sorted({0, *(min(x.start, last) for x in rhythms.values())})
  return [
    (begin, end, {k: x for k, x in rhythms.items() if x.start <= begin})
    for begin, end in zip(begins, [*begins[1:], last], strict=True)
  ]


def _round(rhythms: Mapping[str, Rhythm]) -> int:
  """Return the length of a round, in steps."""
  return 1 + max((x.rest for x in rhythms.values()), default=0)


def _with_equal_outputs(
  moves: list[Callable[..., Move]], *given: Any
) -> list[Callable[..., Move]]:
  """Make all functions return equal fields and metrics."""
  shapes = [jax.eval_shape(move, *given) for move in moves]
  fields = {name for new, _, _ in shapes for name in new}
  measured = {k: v for _, metrics, _ in shapes for k, v in metrics.items()}

  def complete(move):
    def completed(state, key, batch):
      new, metrics, finite = move(state, key, batch)
      old = {name: getattr(state, name) for name in fields}
      nothing = {
        k: jnp.full(v.shape, jnp.nan, v.dtype) for k, v in measured.items()
      }
      return old | new, nothing | metrics, finite

    return completed

  return [complete(move) for move in moves]
