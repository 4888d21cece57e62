"""The trunk of small discriminators: activations at every level.

An image [B, H, W, C] is halved `depth` times while its channels double, up to
eight times the first width; a point [B, D] passes `depth` hidden layers.
"""

import math
from typing import Any

from flax import nnx

from jaxflow.errors import UsageError
from jaxflow.models.layers import group_norm, rectify
from jaxflow.models.network import check_at_least, check_shape
from jaxflow.types import Array


class Trunk(nnx.Module):
  """Convolutions, or linear layers for points, with leaky rectifiers.

  Nothing mixes samples: its norm, if any, is a group norm.
  """

  def __init__(
    self,
    *,
    data_shape: tuple[int, ...],
    width: int,
    depth: int,
    norm: str,
    dtype: Any,
    rngs: nnx.Rngs,
  ):
    self.data_shape = tuple(data_shape)
    self.depth = depth
    self.norm = norm
    self.dtype = dtype
    he = nnx.initializers.he_normal()
    options = {"kernel_init": he, "dtype": dtype, "rngs": rngs}
    image = len(data_shape) == 3
    before = data_shape[-1]
    if image:
      self.input = nnx.Conv(before, width, (3, 3), **options)
      before = width
    for i in range(depth):
      self.width = width * 2 ** min(i + 1, 3) if image else width
      if image:
        layer = nnx.Conv(before, self.width, (4, 4), strides=2, **options)
      else:
        layer = nnx.Linear(before, self.width, **options)
      setattr(self, f"layer_{i}", layer)
      if norm == "group":
        # A group has four channels or more: of one place, one would leave 0.
        groups = max(1, math.gcd(self.width, 32) // 4)
        setattr(self, f"norm_{i}", group_norm(self.width, groups, dtype, rngs))
      before = self.width

  def __call__(self, x: Array) -> tuple[Array, ...]:
    """Return the activations [B, h, w, c], or [B, 1, c], of every level."""
    check_shape(x, self.data_shape)
    x = x.astype(self.dtype)
    if len(self.data_shape) == 3:
      x = rectify(self.input(x))
    levels = []
    for i in range(self.depth):
      x = getattr(self, f"layer_{i}")(x)
      if self.norm == "group":
        x = getattr(self, f"norm_{i}")(x)
      x = rectify(x)
      levels.append(x if x.ndim == 4 else x[:, None])
    return tuple(levels)


def check_trunk(
  data_shape: tuple[int, ...], width: int, depth: int, norm: str
) -> None:
  """Raise UsageError if no trunk can have these options."""
  if len(data_shape) not in (1, 3) or min(data_shape) < 1:
    raise UsageError(
      f"data_shape={tuple(data_shape)}: give (height, width, channels), or "
      "(dimension,) for points"
    )
  check_at_least(1, width=width, depth=depth)
  if norm not in ("group", "none"):
    raise UsageError(f"norm={norm!r}: give 'group' or 'none'")
  if len(data_shape) == 3:
    most = int(math.log2(min(data_shape[:2])))
    if depth > most:
      height, breadth = data_shape[:2]
      raise UsageError(
        f"depth={depth}: an image of {height} x {breadth} can be halved {most} "
        f"times; give {most} or less, or larger images"
      )
