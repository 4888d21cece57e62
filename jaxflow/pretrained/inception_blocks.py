"""The blocks of Inception-v3 as the FID has it.

Named A to E as in torchvision, with its names of branches. They differ from
torchvision's where the graph of 2015 does: average pools do not count the
padding, and the last block pools by the maximum.

References:
  Szegedy et al. 2015 (arXiv:1512.00567), figures 5 to 7 and table 1.
  Seitzer 2020, pytorch-fid, for what differs from torchvision.
"""

import jax.numpy as jnp
from flax import nnx

from jaxflow.pretrained.torch_parameters import FrozenNorm, convolution
from jaxflow.types import Array

Kernel = tuple[int, int]
POINT, THREE, FIVE = (1, 1), (3, 3), (5, 5)
ROW, COLUMN = (1, 7), (7, 1)


class Basic(nnx.Module):
  """A convolution, its norm, a rectifier."""

  def __init__(
    self,
    before: int,
    width: int,
    kernel: Kernel = POINT,
    *,
    stride: int = 1,
    padding: str = "SAME",
    rngs: nnx.Rngs,
  ):
    self.conv = convolution(
      before, width, kernel, strides=stride, padding=padding, rngs=rngs
    )
    self.bn = FrozenNorm(width)

  def __call__(self, x: Array) -> Array:
    """Return [B, h, w, width]."""
    return nnx.relu(self.bn(self.conv(x)))


class Mixed(nnx.Module):
  """Chains of `Basic` beside one another.

  The layers of a chain are `name`, or `name_1`, `name_2`, ...; "branch_pool"
  sees averages. With a stride, the last layer of every chain has it, without
  padding, and the largest of 3 x 3 pixels stand beside the chains.
  """

  def __init__(
    self,
    before: int,
    chains: dict[str, tuple[tuple[int, Kernel], ...]],
    *,
    stride: int = 1,
    rngs: nnx.Rngs,
  ):
    self.stride = stride
    self.chains = tuple(_names(name, len(chains[name])) for name in chains)
    for names, chain in zip(self.chains, chains.values(), strict=True):
      width = before
      for name, (after, kernel) in zip(names, chain, strict=True):
        options = {}
        if stride > 1 and name == names[-1]:
          options = {"stride": stride, "padding": "VALID"}
        setattr(self, name, Basic(width, after, kernel, **options, rngs=rngs))
        width = after

  def __call__(self, x: Array) -> Array:
    """Return [B, h, w, c], the chains in their order."""
    branches = []
    for names in self.chains:
      branch = average(x) if names == ("branch_pool",) else x
      for name in names:
        branch = getattr(self, name)(branch)
      branches.append(branch)
    if self.stride > 1:
      branches.append(largest(x, stride=self.stride))
    return jnp.concatenate(branches, axis=-1)


def _names(chain: str, length: int) -> tuple[str, ...]:
  if length == 1:
    return (chain,)
  return tuple(f"{chain}_{i + 1}" for i in range(length))


def block_a(before: int, pool: int, rngs: nnx.Rngs) -> Mixed:
  """Make the block with kernels of 1, 5 and twice 3, at 35 x 35."""
  chains = {
    "branch1x1": ((64, POINT),),
    "branch5x5": ((48, POINT), (64, FIVE)),
    "branch3x3dbl": ((64, POINT), (96, THREE), (96, THREE)),
    "branch_pool": ((pool, POINT),),
  }
  return Mixed(before, chains, rngs=rngs)


def block_b(before: int, rngs: nnx.Rngs) -> Mixed:
  """Make the block that halves 35 x 35 to 17 x 17."""
  chains = {
    "branch3x3": ((384, THREE),),
    "branch3x3dbl": ((64, POINT), (96, THREE), (96, THREE)),
  }
  return Mixed(before, chains, stride=2, rngs=rngs)


def block_c(before: int, width: int, rngs: nnx.Rngs) -> Mixed:
  """Make the block with kernels of 7 as rows and columns, at 17 x 17.

  Its first 192 channels are those of branch1x1.
  """
  row, column = (width, ROW), (width, COLUMN)
  chains = {
    "branch1x1": ((192, POINT),),
    "branch7x7": ((width, POINT), row, (192, COLUMN)),
    "branch7x7dbl": ((width, POINT), column, row, column, (192, ROW)),
    "branch_pool": ((192, POINT),),
  }
  return Mixed(before, chains, rngs=rngs)


def block_d(before: int, rngs: nnx.Rngs) -> Mixed:
  """Make the block that halves 17 x 17 to 8 x 8."""
  chains = {
    "branch3x3": ((192, POINT), (320, THREE)),
    "branch7x7x3": ((192, POINT), (192, ROW), (192, COLUMN), (192, THREE)),
  }
  return Mixed(before, chains, stride=2, rngs=rngs)


class BlockE(nnx.Module):
  """Rows and columns of 3 beside one another, at 8 x 8."""

  def __init__(self, before: int, *, by_maximum: bool, rngs: nnx.Rngs):
    self.by_maximum = by_maximum
    self.branch1x1 = Basic(before, 320, rngs=rngs)
    self.branch3x3_1 = Basic(before, 384, rngs=rngs)
    self.branch3x3_2a = Basic(384, 384, (1, 3), rngs=rngs)
    self.branch3x3_2b = Basic(384, 384, (3, 1), rngs=rngs)
    self.branch3x3dbl_1 = Basic(before, 448, rngs=rngs)
    self.branch3x3dbl_2 = Basic(448, 384, THREE, rngs=rngs)
    self.branch3x3dbl_3a = Basic(384, 384, (1, 3), rngs=rngs)
    self.branch3x3dbl_3b = Basic(384, 384, (3, 1), rngs=rngs)
    self.branch_pool = Basic(before, 192, rngs=rngs)

  def __call__(self, x: Array) -> Array:
    """Return [B, h, w, 2048]."""
    single = self.branch3x3_1(x)
    double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
    pooled = largest(x, stride=1) if self.by_maximum else average(x)
    return jnp.concatenate(
      [
        self.branch1x1(x),
        *(self.branch3x3_2a(single), self.branch3x3_2b(single)),
        *(self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)),
        self.branch_pool(pooled),
      ],
      axis=-1,
    )


def average(x: Array) -> Array:
  """Average 3 x 3 pixels, of which those outside do not count."""
  return nnx.avg_pool(
    x, (3, 3), strides=(1, 1), padding="SAME", count_include_pad=False
  )


def largest(x: Array, *, stride: int) -> Array:
  """Take the largest of 3 x 3 pixels; padded where the stride is 1."""
  padding = "SAME" if stride == 1 else "VALID"
  return nnx.max_pool(x, (3, 3), strides=(stride, stride), padding=padding)
