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
      before, width, kernel, stride=stride, padding=padding, rngs=rngs
    )
    self.bn = FrozenNorm(width, eps=1e-3)

  def __call__(self, x: Array) -> Array:
    """Return [B, h, w, width]."""
    return nnx.relu(self.bn(self.conv(x)))


class Mixed(nnx.Module):
  """Chains of `Basic` beside one another, by the names of torchvision."""

  def add(
    self,
    name: str,
    before: int,
    *layers: tuple[int, Kernel],
    stride: int = 1,
    rngs: nnx.Rngs,
  ) -> None:
    """Add a chain, `name` or `name_1`, `name_2`, ...; `stride` is the last's.

    Strided layers are not padded.
    """
    for i, (width, kernel) in enumerate(layers):
      strided = stride > 1 and i == len(layers) - 1
      layer = Basic(
        before,
        width,
        kernel,
        stride=stride if strided else 1,
        padding="VALID" if strided else "SAME",
        rngs=rngs,
      )
      setattr(self, f"{name}_{i + 1}" if len(layers) > 1 else name, layer)
      before = width

  def chain(self, name: str, x: Array) -> Array:
    """Return the output of a chain."""
    if hasattr(self, name):
      return getattr(self, name)(x)
    i = 1
    while hasattr(self, f"{name}_{i}"):
      x = getattr(self, f"{name}_{i}")(x)
      i += 1
    return x


class BlockA(Mixed):
  """Kernels of 1, 5 and twice 3, at 35 x 35."""

  def __init__(self, before: int, pool: int, *, rngs: nnx.Rngs):
    self.add("branch1x1", before, (64, POINT), rngs=rngs)
    self.add("branch5x5", before, (48, POINT), (64, FIVE), rngs=rngs)
    double = ((64, POINT), (96, THREE), (96, THREE))
    self.add("branch3x3dbl", before, *double, rngs=rngs)
    self.add("branch_pool", before, (pool, POINT), rngs=rngs)

  def __call__(self, x: Array) -> Array:
    """Return [B, h, w, 224 + pool]."""
    names = ("branch1x1", "branch5x5", "branch3x3dbl")
    branches = [self.chain(name, x) for name in names]
    branches.append(self.chain("branch_pool", average(x)))
    return jnp.concatenate(branches, axis=-1)


class BlockB(Mixed):
  """Halves 35 x 35 to 17 x 17."""

  def __init__(self, before: int, *, rngs: nnx.Rngs):
    self.add("branch3x3", before, (384, THREE), stride=2, rngs=rngs)
    double = ((64, POINT), (96, THREE), (96, THREE))
    self.add("branch3x3dbl", before, *double, stride=2, rngs=rngs)

  def __call__(self, x: Array) -> Array:
    """Return [B, h, w, 480 + before]."""
    branches = [self.chain(name, x) for name in ("branch3x3", "branch3x3dbl")]
    return jnp.concatenate([*branches, largest(x, stride=2)], axis=-1)


class BlockC(Mixed):
  """Kernels of 7 as rows and columns, at 17 x 17."""

  def __init__(self, before: int, width: int, *, rngs: nnx.Rngs):
    self.add("branch1x1", before, (192, POINT), rngs=rngs)
    single = ((width, POINT), (width, ROW), (192, COLUMN))
    self.add("branch7x7", before, *single, rngs=rngs)
    double = ((width, POINT), (width, COLUMN), (width, ROW), (width, COLUMN))
    self.add("branch7x7dbl", before, *double, (192, ROW), rngs=rngs)
    self.add("branch_pool", before, (192, POINT), rngs=rngs)

  def __call__(self, x: Array) -> Array:
    """Return [B, h, w, 768]; its first 192 channels are of branch1x1."""
    names = ("branch1x1", "branch7x7", "branch7x7dbl")
    branches = [self.chain(name, x) for name in names]
    branches.append(self.chain("branch_pool", average(x)))
    return jnp.concatenate(branches, axis=-1)


class BlockD(Mixed):
  """Halves 17 x 17 to 8 x 8."""

  def __init__(self, before: int, *, rngs: nnx.Rngs):
    single = ((192, POINT), (320, THREE))
    self.add("branch3x3", before, *single, stride=2, rngs=rngs)
    double = ((192, POINT), (192, ROW), (192, COLUMN), (192, THREE))
    self.add("branch7x7x3", before, *double, stride=2, rngs=rngs)

  def __call__(self, x: Array) -> Array:
    """Return [B, h, w, 512 + before]."""
    branches = [self.chain(name, x) for name in ("branch3x3", "branch7x7x3")]
    return jnp.concatenate([*branches, largest(x, stride=2)], axis=-1)


class BlockE(Mixed):
  """Rows and columns of 3 beside one another, at 8 x 8."""

  def __init__(self, before: int, *, by_maximum: bool, rngs: nnx.Rngs):
    self.by_maximum = by_maximum
    self.add("branch1x1", before, (320, POINT), rngs=rngs)
    self.branch3x3_1 = Basic(before, 384, rngs=rngs)
    self.branch3x3_2a = Basic(384, 384, (1, 3), rngs=rngs)
    self.branch3x3_2b = Basic(384, 384, (3, 1), rngs=rngs)
    self.branch3x3dbl_1 = Basic(before, 448, rngs=rngs)
    self.branch3x3dbl_2 = Basic(448, 384, THREE, rngs=rngs)
    self.branch3x3dbl_3a = Basic(384, 384, (1, 3), rngs=rngs)
    self.branch3x3dbl_3b = Basic(384, 384, (3, 1), rngs=rngs)
    self.add("branch_pool", before, (192, POINT), rngs=rngs)

  def __call__(self, x: Array) -> Array:
    """Return [B, h, w, 2048]."""
    single = self.branch3x3_1(x)
    double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
    pooled = largest(x, stride=1) if self.by_maximum else average(x)
    return jnp.concatenate(
      [
        self.chain("branch1x1", x),
        self.branch3x3_2a(single),
        self.branch3x3_2b(single),
        self.branch3x3dbl_3a(double),
        self.branch3x3dbl_3b(double),
        self.chain("branch_pool", pooled),
      ],
      axis=-1,
    )


def average(x: Array) -> Array:
  """Average 3 x 3 pixels, of which those outside do not count.

  Example:
    >>> average(jnp.ones((1, 2, 2, 1))).ravel().tolist()
    [1.0, 1.0, 1.0, 1.0]
  """
  return nnx.avg_pool(
    x, (3, 3), strides=(1, 1), padding="SAME", count_include_pad=False
  )


def largest(x: Array, *, stride: int) -> Array:
  """Take the largest of 3 x 3 pixels; padded where the stride is 1.

  Example:
    >>> largest(jnp.arange(9.0).reshape(1, 3, 3, 1), stride=2).ravel().tolist()
    [8.0]
  """
  padding = "SAME" if stride == 1 else "VALID"
  return nnx.max_pool(x, (3, 3), strides=(stride, stride), padding=padding)
