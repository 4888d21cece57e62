"""Networks behind a pure boundary: `init(key)` and `apply(params, ...)`."""

from jaxflow.models.blocks import stack_blocks, unstack_blocks
from jaxflow.models.dit import SIZES, dit
from jaxflow.models.mlp import mlp
from jaxflow.models.network import Network, functional

__all__ = [
  "SIZES",
  "Network",
  "dit",
  "functional",
  "mlp",
  "stack_blocks",
  "unstack_blocks",
]
