"""The types that every module shares."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

__all__ = [
  "Array",
  "Batch",
  "FlowMap",
  "LossOutput",
  "ModelFn",
  "PyTree",
]

Array = jax.Array
PyTree = Any

# (xt [B, ...], t [B], s [B], cond) -> [B, ...]; the velocity where s == t.
ModelFn = Callable[[Array, Array, Array, PyTree], Array]

# (xt [B, ...], t [B], s [B], cond) -> xs [B, ...], the point at time s <= t.
FlowMap = Callable[[Array, Array, Array, PyTree], Array]

# "data" [B, ...]; optional "noise" [B, ...] of unit variance and "cond".
Batch = Mapping[str, Any]

# One number per sample [B], and scalar metrics.
LossOutput = tuple[Array, dict[str, Array]]
