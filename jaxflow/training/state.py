"""The train state: everything that a checkpoint holds."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax

from jaxflow.types import Array, PyTree

# The role of the weights that an adapter changes.
BASE = "base"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Companion:
  """The part of the state of a network that learns beside the student.

  Attributes:
    params: Its parameters, float32.
    opt_state: The state of its optimizer.
  """

  params: PyTree
  opt_state: PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
  """A pytree of plain arrays.

  Attributes:
    step: Steps taken; int32 scalar. It counts batches: skipped steps, and those
      in which only companions learned, are among them.
    updates: Steps that changed the parameters.
    params: The student's parameters, float32; of a run with an adapter, the
      adapter's.
    opt_state: The optimizer's state.
    ema: Named averages of the parameters; "target" is a loss's target network.
    loss_params: Parameters of the loss itself, by its argument: of a learned
      weight, for one. The optimizer moves them with `params`; samples do not
      depend on them, so no average is kept.
    memory: What the loss keeps from step to step, by its argument; see
      `options.Memory`.
    companions: Other networks that learn, by name: "discriminator" for one.
    frozen: Parameters of other networks by role, "teacher" for one; "base" are
      the weights that an adapter changes. They never change, but travel along
      so that a workdir is complete.
    skipped: Steps skipped because loss or gradient was not finite.
    skipped_in_row: Those since the last good step.
  """

  step: Array
  updates: Array
  params: PyTree
  opt_state: PyTree
  ema: dict[str, PyTree]
  loss_params: dict[str, PyTree]
  memory: dict[str, PyTree]
  companions: dict[str, Companion]
  frozen: dict[str, PyTree]
  skipped: Array
  skipped_in_row: Array

  @property
  def trained(self) -> PyTree:
    """What the optimizer moves: `params`, and `loss_params` if any."""
    return (self.params, self.loss_params) if self.loss_params else self.params

  def with_trained(self, trained: PyTree) -> Self:
    """Return the state with other parameters, given like `trained`."""
    params, own = trained if self.loss_params else (trained, {})
    return dataclasses.replace(self, params=params, loss_params=own)


def init_state(
  params: PyTree,
  optimizer: optax.GradientTransformation,
  emas: Mapping[str, Callable[..., Any]],
  *,
  loss_params: Mapping[str, PyTree] | None = None,
  memory: Mapping[str, PyTree] | None = None,
  companions: Mapping[str, Companion] | None = None,
  frozen: Mapping[str, PyTree] | None = None,
) -> TrainState:
  """Start training from given parameters; every average starts there too."""
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    updates=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=(),
    ema={name: jax.tree.map(jnp.copy, params) for name in emas},
    loss_params=dict(loss_params or {}),
    memory=dict(memory or {}),
    companions=dict(companions or {}),
    frozen=dict(frozen or {}),
    skipped=jnp.zeros((), jnp.int32),
    skipped_in_row=jnp.zeros((), jnp.int32),
  )
  opt_state = optimizer.init(state.trained)
  return dataclasses.replace(state, opt_state=opt_state)
