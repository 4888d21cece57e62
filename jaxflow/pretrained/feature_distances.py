"""Distances of features, made when features and weights are given.

Features and calibration weights are parameters, so such a distance is made
inside of a jitted function, from arguments of that function.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp

from jaxflow.losses import perceptual
from jaxflow.losses.perceptual import FeatureFn
from jaxflow.pretrained.vgg import LPIPS_SHA256, read_lpips_weights
from jaxflow.types import PyTree
from jaxflow.weights import Distance, l2


@dataclasses.dataclass(frozen=True)
class FeatureDistance:
  """A distance that waits for its features.

  Attributes:
    make: `make(features, params) -> distance`.
    init: `init(channels) -> params`, parameters of its own of the right shape
      for features of so many channels a layer; None where it has none.
    read: `read(channels) -> params`, the trained ones; None like `init`.
  """

  make: Callable[[FeatureFn, PyTree], Distance]
  init: Callable[[tuple[int, ...]], PyTree] | None = None
  read: Callable[[tuple[int, ...]], PyTree] | None = None


def feature_distance(*, distance: Distance = l2) -> FeatureDistance:
  """Compare features by a distance for every layer, summed over layers."""
  return FeatureDistance(
    lambda features, _: perceptual.feature_distance(features, distance=distance)
  )


def lpips_distance(
  *, file: str | None = None, sha256: str = LPIPS_SHA256
) -> FeatureDistance:
  """Compare unit features; of VGG16 with LPIPS's weights, this is LPIPS.

  Args:
    file: Local path of LPIPS's weights for VGG16; None weighs channels alike.
    sha256: Hash of the file.
  """
  if file is None:
    return FeatureDistance(lambda features, _: perceptual.lpips(features))
  return FeatureDistance(
    perceptual.lpips,
    lambda channels: tuple(jnp.ones(c, jnp.float32) for c in channels),
    lambda channels: read_lpips_weights(
      file, sha256=sha256, stages=tuple((c,) for c in channels)
    ),
  )
