"""Training of a discriminator beside the generator, jointly or in turns.

Before step `start` only the generator learns, and its loss has no adversarial
term. From then on they take turns, the generator in even steps and the
discriminator in odd ones, or both learn in every step. Each step takes a batch.
One that does not learn keeps its parameters, optimizer and averages.

References:
  Kim et al. 2023 (arXiv:2310.02279): alternating, after a first stage without.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxflow import losses
from jaxflow.losses import adversarial
from jaxflow.paths import Path
from jaxflow.times import TimeSampler
from jaxflow.training.gradients import LossFn, apply_gradient, mean_gradient
from jaxflow.training.state import Adversary, TrainState
from jaxflow.types import Array, Batch, FlowMap, PyTree

Turns = Literal["alternate", "joint"]
# (parameters, frozen parameters or None) -> (samples, cond) -> logits.
DiscriminatorFn = Callable[[PyTree, PyTree], Callable[[Array, PyTree], Array]]
# A proposed update: fields of the state, metrics, whether all is finite.
Move = tuple[dict[str, Any], dict[str, Array], Array]

# Draws of the discriminator differ from those of all micro-batches.
_STREAM = 2**31 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opponent:
  """How a discriminator learns.

  Attributes:
    loss_fn: Its loss, of `(its parameters, state, key, batch)`.
    optimizer: Its optimizer.
    start: Step from which on it takes part.
    turns: "alternate" or "joint".
  """

  loss_fn: LossFn
  optimizer: optax.GradientTransformation
  start: int = 0
  turns: Turns = "alternate"

  def init(self, params: PyTree) -> Adversary:
    """Return its first state."""
    return Adversary(params=params, opt_state=self.optimizer.init(params))

  def move(self, state: TrainState, key: Array, batch: Batch) -> Move:
    """Propose its update."""
    assert state.adversary is not None
    params, opt_state = state.adversary.params, state.adversary.opt_state
    gradient, metrics, _ = mean_gradient(
      self.loss_fn, params, state, jax.random.fold_in(key, _STREAM), batch
    )
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(metrics["loss"] + norm)
    params, opt_state, _ = apply_gradient(
      self.optimizer, gradient, opt_state, params
    )
    metrics = {
      "discriminator_loss": metrics["loss"],
      "discriminator_gradient_norm": norm,
      "real_logit": metrics["real"],
      "fake_logit": metrics["fake"],
    }
    adversary = Adversary(params=params, opt_state=opt_state)
    return {"adversary": adversary}, metrics, finite


def discriminator_loss_fn(
  discriminator_fn: DiscriminatorFn,
  generator_fn: Callable[[TrainState], FlowMap],
  *,
  path: Path,
  sample_times: TimeSampler,
  criterion: adversarial.Criterion,
) -> LossFn:
  """Bind the discriminator's loss to the two networks.

  Returns:
    `(discriminator parameters, state, key, batch) -> (loss [B], metrics)`.
  """

  def loss_fn(params, state, key, batch):
    return losses.discriminator_loss(
      discriminator_fn(params, state.frozen.get("features")),
      key,
      batch,
      path=path,
      sample_times=sample_times,
      generator=generator_fn(state),
      criterion=criterion,
    )

  return loss_fn


def count_updates(steps: int, start: int, turns: Turns) -> tuple[int, int]:
  """Count the updates of generator and discriminator in a training."""
  start = min(start, steps)
  if turns == "joint":
    return steps, steps - start
  odd = steps // 2 - start // 2
  return steps - odd, odd


def take_turns(
  generator: Callable[[TrainState, Array, Batch], Move],
  opponent: Opponent,
  state: TrainState,
  key: Array,
  batch: Batch,
) -> Move:
  """Update the networks whose turn it is.

  Returns:
    New fields of the state, metrics with NaN where nothing was measured, and
    whether all of it is finite.
  """

  def alone(state, key, batch):
    return generator(dataclasses.replace(state, adversary=None), key, batch)

  def both(state, key, batch):
    new, metrics, finite = generator(state, key, batch)
    its, more, well = opponent.move(state, key, batch)
    return new | its, metrics | more, finite & well

  moves = [both] if opponent.turns == "joint" else [generator, opponent.move]
  turn = state.step % len(moves)
  if opponent.start:
    moves = [alone, *moves]
    turn = jnp.where(state.step < opponent.start, 0, 1 + turn)
  # Jitted, so that their traces for shapes are those that are compiled.
  moves = [jax.jit(move) for move in moves]
  return jax.lax.switch(
    turn, _with_equal_outputs(moves, state, key, batch), state, key, batch
  )


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
