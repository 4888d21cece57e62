"""Discriminators: logits of how real a sample looks.

Labels enter by projection. With phi(x) the mean of the last activations over
positions, v and b a linear map, and e(y) the embedding of label y,

  logit(x, y) = <v, phi(x)> + b + <e(y), phi(x)>                          (1)

One of points at several times s has a further <e'(s), phi(x)>, e' of sinusoids
and a small MLP.

A projected discriminator has one such logit for each layer of a frozen feature
network: phi_l is computed from the normalised features of layer l by a small
trainable head. The frozen parameters are an argument of `apply`, so they are
inputs of a jitted function, not constants, and are not trained.

No sample sees another: there is no batch norm. Logits are float32.

References:
  Miyato, Koyama 2018 (arXiv:1802.05637), eq. 3, for (1); theirs sums over
  positions. Sauer et al. 2021 (arXiv:2111.01007) for projected discriminators,
  here without their random mixing of channels and scales.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxflow.errors import UsageError
from jaxflow.models import checks
from jaxflow.models.embeddings import LabelEmbedder, TimeEmbedder
from jaxflow.models.features import Features, Trunk
from jaxflow.models.layers import TokenLinear, layer_norm, rectify
from jaxflow.models.network import compute_dtype, init_and_module
from jaxflow.options import Count, Layers, Natural
from jaxflow.types import Array, PyTree


@dataclass(frozen=True)
class Discriminator:
  """A pair of pure functions, and their feature network.

  Attributes:
    init: `init(key) -> params`, the trainable parameters, float32.
    apply: `apply(params, x, cond, frozen=None) -> logits`, [B] or [B, heads].
      A timed one has a last argument `s=None`, the times [B] of x.
    features: The feature network whose parameters `apply` takes as `frozen`;
      None where it takes none.
    timed: Whether it sees the time of its points.
  """

  init: Callable[[Array], PyTree]
  apply: Callable[..., Array]
  features: Features | None = None
  timed: bool = False


@dataclass(frozen=True)
class Heads:
  """A pair of pure functions of hidden activations.

  Attributes:
    init: `init(key) -> params`, the trainable parameters, float32.
    apply: `apply(params, activations, cond) -> logits`, [B, layers], float32.
  """

  init: Callable[[Array], PyTree]
  apply: Callable[[PyTree, tuple[Array, ...], PyTree], Array]


class LabelLogit(nnx.Module):
  """The logit of eq. (1), with the term of a time if it is timed."""

  def __init__(
    self,
    width: int,
    num_classes: int,
    *,
    timed: bool = False,
    rngs: nnx.Rngs,
  ):
    self.output: nnx.Linear = nnx.Linear(width, 1, rngs=rngs)
    self.label = (
      LabelEmbedder(num_classes, width, rngs=rngs) if num_classes else None
    )
    self.time = TimeEmbedder(width, scale=1.0, rngs=rngs) if timed else None

  def __call__(self, x: Array, cond: PyTree, s: Array | None = None) -> Array:
    """Return the logits [B] of activations [B, ..., width], float32."""
    batch, width = x.shape[0], x.shape[-1]
    phi = x.astype(jnp.float32).reshape(batch, -1, width).mean(axis=1)
    logits = self.output(phi)[:, 0]
    if self.label is not None:
      logits = logits + (self.label(cond, batch) * phi).sum(axis=-1)
    if self.time is not None:
      if s is None:
        raise UsageError(
          "s=None: a timed discriminator sees points at times s: give s, in a "
          "config discriminator.times.name='loss_pairs'"
        )
      logits = logits + (self.time(s) * phi).sum(axis=-1)
    return logits


class ConvDiscriminator(nnx.Module):
  """A trunk and one logit."""

  def __init__(
    self, *, num_classes: int, timed: bool, rngs: nnx.Rngs, **trunk: Any
  ):
    self.trunk: Trunk = Trunk(**trunk, rngs=rngs)
    self.logit: LabelLogit = LabelLogit(
      self.trunk.width, num_classes, timed=timed, rngs=rngs
    )

  def __call__(self, x: Array, cond: PyTree, s: Array | None = None) -> Array:
    """Return the logits [B]."""
    return self.logit(self.trunk(x)[-1], cond, s)


class FeatureHeads(nnx.Module):
  """One logit for each layer of features."""

  def __init__(
    self,
    channels: tuple[int, ...],
    *,
    width: int,
    num_classes: int,
    dtype: Any,
    rngs: nnx.Rngs,
  ):
    for i, size in enumerate(channels):
      setattr(self, f"norm_{i}", layer_norm(size, jnp.float32, rngs))
      hidden = TokenLinear(size, width, dtype=dtype, rngs=rngs)
      setattr(self, f"hidden_{i}", hidden)
      setattr(self, f"logit_{i}", LabelLogit(width, num_classes, rngs=rngs))

  def __call__(self, features: tuple[Array, ...], cond: PyTree) -> Array:
    """Return the logits [B, heads] of features [B, ..., c]."""
    logits = []
    for i, x in enumerate(features):
      x = getattr(self, f"norm_{i}")(x)
      x = rectify(getattr(self, f"hidden_{i}")(x))
      logits.append(getattr(self, f"logit_{i}")(x, cond))
    return jnp.stack(logits, axis=1)


def conv_discriminator(
  *,
  data_shape: tuple[int, ...],
  width: Count = 64,
  depth: Layers = 3,
  norm: str = "group",
  num_classes: Natural = 0,
  timed: bool = False,
  dtype: str = "float32",
) -> Discriminator:
  """Make a small convolutional discriminator, of points an MLP: logits [B].

  Args:
    data_shape: Shape of one sample: (H, W, C), or (D,) for points.
    width: Channels at full size; doubled at every halving, up to eight times.
      Points keep it.
    depth: How often the image is halved; hidden layers for points.
    norm: "group" or "none".
    num_classes: Number of labels; 0 makes it ignore `cond`. The null label is
      `num_classes`; cond None stands for it.
    timed: Whether `apply` takes the time s of the points.
    dtype: "float32" or "bfloat16", the type of the trunk's arithmetic.

  Raises:
    UsageError: If an option has an impossible value; in `apply`, if a timed one
      gets no s.

  Example:
    >>> discriminator = conv_discriminator(data_shape=(8, 8, 1), width=4)
    >>> params = discriminator.init(jax.random.key(0))
    >>> discriminator.apply(params, jnp.ones((2, 8, 8, 1)), None).shape
    (2,)
  """
  checks.at_least(0, num_classes=num_classes)
  init, module = init_and_module(
    lambda rngs: ConvDiscriminator(
      data_shape=data_shape,
      width=width,
      depth=depth,
      norm=norm,
      num_classes=num_classes,
      timed=timed,
      dtype=dtype,
      rngs=rngs,
    )
  )

  def apply(
    params: PyTree,
    x: Array,
    cond: PyTree,
    frozen: PyTree = None,
    s: Array | None = None,
  ) -> Array:
    del frozen
    return module(params)(x, cond, s)

  return Discriminator(init, apply, timed=timed)


def projected_discriminator(
  *,
  data_shape: tuple[int, ...],
  features: Features,
  width: Count = 64,
  num_classes: Natural = 0,
  dtype: str = "float32",
) -> Discriminator:
  """Make heads on the layers of a frozen feature network: logits [B, layers].

  Args:
    data_shape: Shape of one sample.
    features: The feature network; `apply` takes its parameters as `frozen` and
      gives them no gradient. The samples get theirs through it.
    width: Features of a head.
    num_classes: Number of labels; 0 makes it ignore `cond`. The null label is
      `num_classes`; cond None stands for it.
    dtype: "float32" or "bfloat16", the type of the heads' arithmetic.

  Raises:
    UsageError: If an option has an impossible value; in `apply`, if `frozen` is
      not given.

  Example:
    >>> from jaxflow.models import conv_features
    >>> features = conv_features(data_shape=(8, 8, 1), width=4, depth=2)
    >>> discriminator = projected_discriminator(
    ...     data_shape=(8, 8, 1), features=features, width=8)
    >>> params = discriminator.init(jax.random.key(0))
    >>> frozen = features.init(jax.random.key(1))
    >>> x = jnp.ones((3, 8, 8, 1))
    >>> discriminator.apply(params, x, None, frozen).shape
    (3, 2)
  """
  checks.at_least(1, width=width)
  checks.at_least(0, num_classes=num_classes)
  compute = compute_dtype(dtype)
  sample = jax.ShapeDtypeStruct((1, *data_shape), jnp.float32)
  frozen_shapes = jax.eval_shape(features.init, jax.random.key(0))
  layers = jax.eval_shape(features.apply, frozen_shapes, sample)
  channels = tuple(layer.shape[-1] for layer in layers)
  init, module = init_and_module(
    lambda rngs: FeatureHeads(
      channels, width=width, num_classes=num_classes, dtype=compute, rngs=rngs
    )
  )

  def apply(
    params: PyTree, x: Array, cond: PyTree, frozen: PyTree = None
  ) -> Array:
    if frozen is None:
      raise UsageError(
        "frozen=None: a projected discriminator needs its features' parameters"
      )
    seen = features.apply(jax.lax.stop_gradient(frozen), x)
    return module(params)(seen, cond)

  return Discriminator(init, apply, features)


def feature_heads(
  *,
  hidden_channels: tuple[int, ...],
  width: Count = 64,
  num_classes: Natural = 0,
  dtype: str = "float32",
) -> Heads:
  """Make a small head for each layer of hidden activations, with one logit.

  Args:
    hidden_channels: Channels of the activations of each layer.
    width: Features of a head.
    num_classes: Number of labels; 0 makes it ignore `cond`. The null label is
      `num_classes`; cond None stands for it.
    dtype: "float32" or "bfloat16", the type of the heads' arithmetic.

  Raises:
    UsageError: If an option has an impossible value.

  Example:
    >>> heads = feature_heads(hidden_channels=(4, 8), width=8)
    >>> params = heads.init(jax.random.key(0))
    >>> seen = jnp.ones((3, 2, 2, 4)), jnp.ones((3, 1, 1, 8))
    >>> heads.apply(params, seen, None).shape
    (3, 2)
  """
  checks.at_least(1, width=width)
  checks.at_least(0, num_classes=num_classes)
  compute = compute_dtype(dtype)
  init, module = init_and_module(
    lambda rngs: FeatureHeads(
      hidden_channels,
      width=width,
      num_classes=num_classes,
      dtype=compute,
      rngs=rngs,
    )
  )
  return Heads(init, lambda params, seen, cond: module(params)(seen, cond))
