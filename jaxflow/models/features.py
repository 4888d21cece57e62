"""Feature networks: hidden activations as a function of a sample.

Projected discriminators and feature distances see samples through them. Their
parameters stay frozen and stay an argument, so that a jitted function takes
them as inputs and not as constants of the program.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import ArrayLike

from jaxflow.errors import UsageError
from jaxflow.models import checks
from jaxflow.models.layers import group_norm, rectify
from jaxflow.models.network import Network, compute_dtype, init_and_module
from jaxflow.options import Count, Finite, Layers
from jaxflow.types import Array, PyTree


@dataclass(frozen=True)
class Features:
  """A pair of pure functions, and where trained parameters come from.

  Attributes:
    init: `init(key) -> frozen`, random: a nested dict of float32 arrays.
    apply: `apply(frozen, x) -> features`, a tuple with one array a layer,
      [B, h, w, c] or [B, n, c]; x is [B, H, W, C] or [B, D].
    read: `read() -> frozen`, the trained parameters in the user's files; None
      where there are no files.
  """

  init: Callable[[Array], PyTree]
  apply: Callable[[PyTree, Array], tuple[Array, ...]]
  read: Callable[[], PyTree] | None = None

  def parameters(self, key: Array) -> PyTree:
    """Return the trained parameters, or random ones where there are none."""
    return self.init(key) if self.read is None else self.read()


def conv_features(
  *,
  data_shape: tuple[int, ...],
  width: Count = 32,
  depth: Layers = 3,
  norm: str = "group",
  dtype: str = "float32",
) -> Features:
  """Make the levels of a discriminator's trunk, at random parameters.

  Random convolutions see edges and textures; they need no download. There is
  one layer of features a level.

  Args:
    data_shape: Shape of one sample: (H, W, C), or (D,) for points.
    width: Channels at full size; doubled at every level, up to eight times.
      Points keep it.
    depth: Number of levels, each half the size of the one before.
    norm: "group" or "none".
    dtype: "float32" or "bfloat16", the type of the arithmetic.

  Raises:
    UsageError: If an option has an impossible value.

  Example:
    >>> network = conv_features(data_shape=(8, 8, 1), width=4, depth=2)
    >>> frozen = network.init(jax.random.key(0))
    >>> [f.shape for f in network.apply(frozen, jnp.ones((3, 8, 8, 1)))]
    [(3, 4, 4, 8), (3, 2, 2, 16)]
  """
  init, module = init_and_module(
    lambda rngs: Trunk(
      data_shape=data_shape,
      width=width,
      depth=depth,
      norm=norm,
      dtype=dtype,
      rngs=rngs,
    )
  )
  return Features(init, lambda frozen, x: module(frozen)(x))


def pixel_features(
  *,
  data_shape: tuple[int, ...],
  picture_range: tuple[ArrayLike, ArrayLike] | None = (-1.0, 1.0),
) -> Features:
  """Make features of the numbers of an image, clipped as those of a picture.

  There is one layer, [B, 1, numbers], and nothing to train. A number outside of
  the range has no gradient.

  Args:
    data_shape: Shape of one sample.
    picture_range: The lowest and the highest number of pictures, scaled as the
      samples are; one, or one for each channel. None: samples are no pictures.

  Raises:
    UsageError: If samples are no pictures.

  Example:
    >>> network = pixel_features(data_shape=(1, 2, 1))
    >>> (seen,) = network.apply({}, jnp.array([[[[0.5], [3.0]]]]))
    >>> seen.tolist()
    [[[0.5, 1.0]]]
  """
  if picture_range is None:
    raise UsageError(
      "samples are no pictures, whose numbers have a range: choose other "
      "features, or none"
    )
  ends = [np.asarray(x, np.float32).reshape(-1) for x in picture_range]

  def apply(frozen: PyTree, x: Array) -> tuple[Array, ...]:
    del frozen
    checks.shape(x, data_shape)
    low, high = (
      jnp.broadcast_to(jnp.asarray(end, x.dtype), x.shape) for end in ends
    )
    return (jnp.clip(x, low, high).reshape(len(x), 1, -1),)

  return Features(lambda key: {}, apply)


def hidden_features(
  network: Network,
  *,
  t: Finite = 0.0,
  layers: tuple[int, ...] | None = None,
  cond: PyTree = None,
) -> Features:
  """Make features of the hidden activations of a generative network.

  Near t = 0 a network meets samples with next to no noise, so a trained one
  gives features of its data set. `init` is the network's; give its trained
  parameters as `frozen`.

  Args:
    network: A DiT, [B, rows, columns, width] after every block, a U-Net,
      [B, h, w, c] after every block, or an MLP, [B, 1, width] after every
      hidden layer.
    t: The time that the network is told, with s = t: `path.t_min`, or what a
      preconditioning makes of it. The samples are given to it as they are.
    layers: Which activations, 0 the first, -1 the last; None for all.
    cond: The condition of one sample, for instance the dict that a network
      with guidance_inputs reads; None for the null label.

  Raises:
    UsageError: If the network shows no activations, or a layer is none.

  Example:
    >>> from jaxflow.models import mlp
    >>> network = hidden_features(mlp(data_shape=(2,), width=8), layers=(-1,))
    >>> frozen = network.init(jax.random.key(0))
    >>> [f.shape for f in network.apply(frozen, jnp.ones((3, 2)))]
    [(3, 1, 8)]
  """
  hidden = network.hidden
  if hidden is None:
    raise UsageError(
      "network: it shows no hidden activations; give a dit, unet or mlp"
    )

  def apply(frozen: PyTree, x: Array) -> tuple[Array, ...]:
    batch = x.shape[0]
    time = jnp.full((batch,), t, jnp.float32)
    told = jax.tree.map(
      lambda c: jnp.broadcast_to(c, (batch, *jnp.shape(c))), cond
    )
    activations = hidden(frozen, x, time, time, told)
    if layers is None:
      return activations
    for layer in layers:
      if not -len(activations) <= layer < len(activations):
        raise UsageError(
          f"layers={layers}: the network has {len(activations)} layers, "
          f"0 to {len(activations) - 1}"
        )
    return tuple(activations[layer] for layer in layers)

  return Features(network.init, apply)


class Trunk(nnx.Module):
  """The trunk of small discriminators: activations at every level.

  An image [B, H, W, C] is halved `depth` times by convolutions while its
  channels double, up to eight times the first width; a point [B, D] passes
  `depth` linear layers. Rectifiers are leaky. Nothing mixes samples: its norm,
  if any, is a group norm.
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
    _check(data_shape, width, depth, norm)
    self.data_shape = tuple(data_shape)
    self.depth = depth
    self.norm = norm
    self.dtype = compute_dtype(dtype)
    he = nnx.initializers.he_normal()
    options = {"kernel_init": he, "dtype": self.dtype, "rngs": rngs}
    image = len(data_shape) == 3
    before = data_shape[-1]
    if image:
      self.input: nnx.Conv = nnx.Conv(before, width, (3, 3), **options)
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
        norm_layer = group_norm(self.width, groups, self.dtype, rngs)
        setattr(self, f"norm_{i}", norm_layer)
      before = self.width

  def __call__(self, x: Array) -> tuple[Array, ...]:
    """Return the activations [B, h, w, c], or [B, 1, c], of every level."""
    checks.shape(x, self.data_shape)
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


def _check(
  data_shape: tuple[int, ...], width: int, depth: int, norm: str
) -> None:
  """Raise UsageError if no trunk can have these options."""
  if len(data_shape) not in (1, 3) or min(data_shape) < 1:
    raise UsageError(
      f"data_shape={tuple(data_shape)}: give (height, width, channels), or "
      "(dimension,) for points"
    )
  checks.at_least(1, width=width, depth=depth)
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
