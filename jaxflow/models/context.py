"""A condition as tokens in front of those of the image.

Each embedding, of the label, of the guidance and its interval, of the times, is
added to a few learned tokens of its own. Blocks then need no modulation.

References:
  Geng et al., 2025, arXiv:2512.02012: in-context conditioning.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from jaxflow.models.embeddings import embedded_times
from jaxflow.types import Array, PyTree


class Context(nnx.Module):
  """Learned tokens for each part of a condition.

  Args:
    counts: Number of tokens of the label, of the guidance scale, of each end of
      its interval, and of the times.
    width: Features of a token.
    module: The network; what it does not embed gets no tokens.
    rngs: Of the initial values.
  """

  def __init__(
    self,
    counts: tuple[int, ...],
    width: int,
    module: Any,
    *,
    rngs: nnx.Rngs,
  ):
    label, scale, end, time = counts
    sees = {
      "label": label if module.label is not None else 0,
      **dict.fromkeys(("scale",), scale if module.guidance is not None else 0),
      **dict.fromkeys(("start", "end"), end if module.guidance else 0),
      "time": time if module.time or module.interval else 0,
    }
    init = nnx.initializers.normal(width**-0.5)
    self.names: tuple[str, ...] = tuple(k for k, count in sees.items() if count)
    for name in self.names:
      tokens = init(rngs.params(), (sees[name], width), jnp.float32)
      setattr(self, name, nnx.Param(tokens))
    self.count: int = sum(sees.values())

  def __call__(
    self, module: Any, t: Array, s: Array, cond: PyTree, dtype: Any
  ) -> Array:
    """Return the tokens [B, count, width] of a condition."""
    embedded: dict[str, Any] = {"time": embedded_times(module, t, s)}
    if module.label is not None:
      embedded["label"] = module.label(cond, t.shape[0])
    if module.guidance is not None:
      names = ("scale", "start", "end")
      parts = module.guidance.parts(cond)
      embedded |= dict(zip(names, parts, strict=True))
    tokens = [
      getattr(self, name)[...][None] + embedded[name][:, None]
      for name in self.names
    ]
    return jnp.concatenate(tokens, axis=1).astype(dtype)
