"""The train state: everything that a checkpoint holds."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from jaxflow.types import Array, PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
  """A pytree of plain arrays.

  Attributes:
    step: Steps taken, skipped ones included; int32 scalar.
    params: The student's parameters, float32.
    opt_state: The optimizer's state.
    ema: Named averages of the parameters; "target" is a loss's target network.
    teacher: The teacher's parameters, or None. They never change, but travel
      along so that a workdir is complete.
    skipped: Steps skipped because loss or gradient was not finite.
    skipped_in_row: Those since the last good step.
  """

  step: Array
  params: PyTree
  opt_state: PyTree
  ema: dict[str, PyTree]
  teacher: PyTree
  skipped: Array
  skipped_in_row: Array


def init_state(
  params: PyTree,
  optimizer: optax.GradientTransformation,
  emas: Mapping[str, Callable],
  *,
  teacher: PyTree = None,
) -> TrainState:
  """Start training from given parameters; every average starts there too.

  Args:
    params: Initial parameters.
    optimizer: The optimizer.
    emas: Laws of the averages by name.
    teacher: The teacher's parameters, or None.

  Returns:
    The state of step 0.

  Example:
    >>> state = init_state({"w": jnp.zeros(2)}, optax.sgd(1.0), {"slow": None})
    >>> int(state.step), list(state.ema)
    (0, ['slow'])
  """
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(params),
    ema={name: jax.tree.map(jnp.copy, params) for name in emas},
    teacher=teacher,
    skipped=jnp.zeros((), jnp.int32),
    skipped_in_row=jnp.zeros((), jnp.int32),
  )
