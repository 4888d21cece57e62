"""VGG16 as a feature network, and the weights of LPIPS, from local files.

Five stages of rectified 3 x 3 convolutions, with a halving between them; the
features are the last activations of each stage. Images in [-1, 1] are scaled by
the constants of LPIPS version 0.1. LPIPS compares images as they are, without
resizing; `resize` is what the consistency papers do before, to 224.

References:
  Simonyan, Zisserman 2014 (arXiv:1409.1556), configuration D.
  Zhang et al. 2018 (arXiv:1801.03924), section 3.
  Song et al. 2023 (arXiv:2303.01469), appendix C, for the resizing.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxflow.errors import UsageError
from jaxflow.models.features import Features, feature_functions
from jaxflow.models.network import compute_dtype
from jaxflow.pretrained import torch_files
from jaxflow.pretrained.torch_parameters import read_parameters
from jaxflow.types import Array

Stages = tuple[tuple[int, ...], ...]

VGG16_STAGES: Stages = (
  (64, 64),
  (128, 128),
  (256, 256, 256),
  (512, 512, 512),
  (512, 512, 512),
)
"""Channels of the convolutions of each stage."""

# Of the published files. The first digits of the first are in its name; both
# are what checks of the files in public repositories state.
VGG16_SHA256 = (
  "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"
)
LPIPS_SHA256 = (
  "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"
)

# LPIPS: the mean and deviation of ImageNet's colours, on [-1, 1].
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_SMALLEST = 32


class VGG(nnx.Module):
  """Stages of convolutions; parameters are named as in torchvision's file."""

  def __init__(
    self, stages: Stages, *, resize: int | None, dtype: Any, rngs: nnx.Rngs
  ):
    self.stages = stages
    self.resize = resize
    self.dtype = dtype
    before = 3
    for name, width in _convolutions(stages):
      init = nnx.initializers.he_normal()
      layer = nnx.Conv(
        before, width, (3, 3), kernel_init=init, dtype=dtype, rngs=rngs
      )
      setattr(self, name, layer)
      before = width

  def __call__(self, x: Array) -> tuple[Array, ...]:
    """Return the features [B, h, w, c] of every stage."""
    x = self._scaled(x).astype(self.dtype)
    names = iter(_convolutions(self.stages))
    features = []
    for i, stage in enumerate(self.stages):
      if i:
        x = nnx.max_pool(x, (2, 2), strides=(2, 2))
      for _ in stage:
        x = jax.nn.relu(getattr(self, next(names)[0])(x))
      features.append(x)
    return tuple(features)

  def _scaled(self, x: Array) -> Array:
    if x.ndim != 4 or x.shape[3] not in (1, 3):
      raise UsageError(
        f"data_shape={x.shape[1:]}: VGG16 sees images (height, width, 3), or "
        "gray ones, (height, width, 1)"
      )
    if self.resize is not None:
      shape = (x.shape[0], self.resize, self.resize, x.shape[3])
      x = jax.image.resize(x, shape, "bilinear")
    if min(x.shape[1:3]) < _SMALLEST:
      raise UsageError(
        f"data_shape={x.shape[1:]}: VGG16 needs {_SMALLEST} pixels a side; set "
        "resize=224, as the consistency papers do, or 64, LPIPS's own patches"
      )
    x = jnp.broadcast_to(x, (*x.shape[:3], 3))
    shift, scale = (jnp.asarray(c, x.dtype) for c in (_SHIFT, _SCALE))
    return (x - shift.reshape(1, 1, 1, 3)) / scale.reshape(1, 1, 1, 3)


def vgg16(
  *,
  file: str | None = None,
  sha256: str = VGG16_SHA256,
  resize: int | None = None,
  dtype: str = "float32",
  stages: Stages = VGG16_STAGES,
) -> Features:
  """Make VGG16's features of images in [-1, 1], [B, H, W, 3] or gray.

  Args:
    file: Local path of torchvision's vgg16-397923af.pth, or of an .npz file
      with its names; `read` reads it. None for random parameters only.
    sha256: Hash of the file; of a conversion, give its own.
    resize: Side to which images are resized first, bilinearly; None for none.
      Images below 32 pixels need it.
    dtype: "float32" or "bfloat16", the type of the arithmetic.
    stages: Channels of every convolution.

  Returns:
    `Features` of one layer a stage.

  Raises:
    UsageError: If a field has an impossible value; in `read`, if the file is
      not what it should be; in `apply`, if the images are too small.

  Example:
    >>> network = vgg16(stages=((2,), (3, 3)), resize=32)
    >>> frozen = network.init(jax.random.key(0))
    >>> [f.shape for f in network.apply(frozen, jnp.ones((1, 28, 28, 1)))]
    [(1, 32, 32, 2), (1, 16, 16, 3)]
  """
  if resize is not None and resize < _SMALLEST:
    raise UsageError(f"resize={resize}: give {_SMALLEST} or more")
  compute = compute_dtype(dtype)

  def make_module(rngs: nnx.Rngs) -> VGG:
    return VGG(stages, resize=resize, dtype=compute, rngs=rngs)

  functions = feature_functions(make_module)
  if file is None:
    return functions
  return dataclasses.replace(
    functions,
    read=lambda: read_parameters(
      file,
      make_module,
      name_of=lambda place: ".".join(place).replace("_", "."),
      sha256=sha256,
      source="torchvision's vgg16-397923af.pth",
    ),
  )


def read_lpips_weights(
  file: str, *, sha256: str = LPIPS_SHA256, stages: Stages = VGG16_STAGES
) -> tuple[Array, ...]:
  """Read the weights of the channels, for `perceptual.lpips`.

  Args:
    file: Local path of LPIPS's lpips/weights/v0.1/vgg.pth, or of an .npz file
      with its names.
    sha256: Hash of the file; of a conversion, give its own.
    stages: Channels of the feature network.

  Returns:
    Non-negative weights [c], one array a stage.

  Raises:
    UsageError: If the file is not what it should be.
  """
  widths = [stage[-1] for stage in stages]
  names = [f"lin{i}.model.1.weight" for i in range(len(widths))]
  source = "lpips/weights/v0.1/vgg.pth of richzhang/PerceptualSimilarity"
  arrays = torch_files.read(file, names, sha256=sha256, source=source)
  weights = []
  for name, width in zip(names, widths, strict=True):
    array, shape = arrays[name], (1, width, 1, 1)
    if array.shape != shape:
      raise UsageError(
        f"file={file}: {name} has shape {array.shape}; the network needs "
        f"{shape}"
      )
    if not (array >= 0).all():
      raise UsageError(
        f"file={file}: {name} has a weight that is not 0 or more; get {source}"
      )
    weights.append(jnp.asarray(array.reshape(width), jnp.float32))
  return tuple(weights)


def _convolutions(stages: Stages) -> list[tuple[str, int]]:
  """Return name and width of each: torchvision counts every operation."""
  layers, index = [], 0
  for stage in stages:
    for width in stage:
      layers.append((f"features_{index}", width))
      index += 2  # The convolution and its rectifier.
    index += 1  # The halving.
  return layers
