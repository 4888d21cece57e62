"""The types that every module shares."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax

from jaxflow.options import InPairs, Jumps, Outputs, Role, Unpaired

Array = jax.Array
PyTree = Any

# (xt [B, ...], t [B], s [B], cond) -> [B, ...]; the velocity where s == t.
ModelFn = Annotated[Callable[[Array, Array, Array, PyTree], Array], Outputs(1)]

# The same, asked for jumps of every length: it has to see s.
JumpFn = Annotated[ModelFn, Jumps()]

# (xt [B, ...], t [B], s [B], cond) -> xs [B, ...], the point at time s <= t.
FlowMap = Callable[[Array, Array, Array, PyTree], Array]

# "data" [B, ...]; optional "noise" [B, ...] of unit variance and "cond".
Batch = Mapping[str, Any]

# A batch that has "noise": a teacher made the data of it.
Pairs = Annotated[Batch, InPairs()]

# A batch that is compared with samples as a whole, whatever noise they are of.
WholeBatch = Annotated[Batch, Unpaired()]

# The network of another run, as one that predicts the velocity.
Teacher = Annotated[ModelFn, Role("teacher")]

# The flow map of another run, whose jumps to the data are a consistency
# function.
FirstStage = Annotated[FlowMap, Role("teacher", jumps=True)]

# (samples [B, ...], cond) -> logits [B] or [B, heads].
Discriminator = Annotated[
  Callable[[Array, PyTree], Array], Role("discriminator")
]

# The network that predicts the velocity of a generator's noised samples.
FakeScore = Annotated[ModelFn, Role("fake_score")]

# (noised samples [B, ...], t [B], cond) -> logits [B] or [B, heads].
Critic = Annotated[Callable[[Array, Array, PyTree], Array], Role("critic")]

# (points [B, ...], cond, their time s [B]) -> logits [B] or [B, heads].
TimedDiscriminator = Annotated[
  Callable[[Array, PyTree, Array], Array], Role("discriminator", timed=True)
]

# One number per sample [B], and scalar metrics.
LossOutput = tuple[Array, dict[str, Array]]

# The same, and new values of the loss's memories, by argument; see
# `options.Memory`.
LossAndMemory = tuple[Array, dict[str, Array], dict[str, Any]]

# A loss, whose options are arguments by name.
LossFunction = Callable[..., LossOutput | LossAndMemory]
