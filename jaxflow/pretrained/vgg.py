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
from jaxflow.models.features import Features
from jaxflow.models.network import compute_dtype, init_and_module
from jaxflow.models.preprocessing import rgb
from jaxflow.options import Count
from jaxflow.pretrained import torch_files
from jaxflow.pretrained.torch_parameters import (
  dotted,
  read_parameters,
  to_our_layout,
)
from jaxflow.types import Array

Stages = tuple[tuple[int, ...], ...]

# Channels of the convolutions of each stage.
VGG16_STAGES = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)

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
    init = nnx.initializers.he_normal()
    for names, widths in zip(_names(stages), stages, strict=True):
      for name, width in zip(names, widths, strict=True):
        layer = nnx.Conv(
          before, width, (3, 3), kernel_init=init, dtype=dtype, rngs=rngs
        )
        setattr(self, name, layer)
        before = width

  def __call__(self, x: Array) -> tuple[Array, ...]:
    """Return the features [B, h, w, c] of every stage."""
    x = self._scaled(x).astype(self.dtype)
    features = []
    for names in _names(self.stages):
      if features:
        x = nnx.max_pool(x, (2, 2), strides=(2, 2))
      for name in names:
        x = jax.nn.relu(getattr(self, name)(x))
      features.append(x)
    return tuple(features)

  def _scaled(self, images: Array) -> Array:
    x = rgb(images, "VGG16")
    if self.resize is not None:
      x = jax.image.resize(x, (len(x), self.resize, self.resize, 3), "bilinear")
    elif min(x.shape[1:3]) < _SMALLEST:
      raise UsageError(
        f"data_shape={images.shape[1:]}: VGG16 needs {_SMALLEST} pixels a side;"
        " set resize=224, as the consistency papers do, or 64, LPIPS's own "
        "patches"
      )
    shift, scale = (jnp.asarray(c, x.dtype) for c in (_SHIFT, _SCALE))
    return (x - shift.reshape(1, 1, 1, 3)) / scale.reshape(1, 1, 1, 3)


def vgg16(
  *,
  file: str | None = None,
  sha256: str = VGG16_SHA256,
  resize: Count | None = None,
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
    stages: Channels of every convolution; a stage is a layer of features.
  """
  if resize is not None and resize < _SMALLEST:
    raise UsageError(f"resize={resize}: give {_SMALLEST} or more")
  compute = compute_dtype(dtype)

  def make_module(rngs: nnx.Rngs) -> VGG:
    return VGG(stages, resize=resize, dtype=compute, rngs=rngs)

  init, module = init_and_module(make_module)
  features = Features(init, lambda frozen, x: module(frozen)(x))
  if file is None:
    return features
  return dataclasses.replace(
    features,
    read=lambda: read_parameters(
      file,
      make_module,
      name_of=dotted,
      sha256=sha256,
      source="torchvision's vgg16-397923af.pth",
    ),
  )


def read_lpips_weights(
  file: str, *, sha256: str = LPIPS_SHA256, stages: Stages = VGG16_STAGES
) -> tuple[Array, ...]:
  """Read the weights [c] of the channels, one array a stage, not negative.

  They are for `perceptual.lpips`. The file is lpips/weights/v0.1/vgg.pth of
  LPIPS, or an .npz file with its names; a conversion has a hash of its own.
  """
  widths = [stage[-1] for stage in stages]
  names = [f"lin{i}.model.1.weight" for i in range(len(widths))]
  source = "lpips/weights/v0.1/vgg.pth of richzhang/PerceptualSimilarity"
  tensors = torch_files.read(file, names, sha256=sha256, source=source)
  weights = []
  for name, width in zip(names, widths, strict=True):
    kernel = to_our_layout(
      name, tensors[name], (1, 1, width, 1), f"file={file}"
    )
    if not (kernel >= 0).all():
      raise UsageError(
        f"file={file}: {name} has a weight that is not 0 or more; get {source}"
      )
    weights.append(jnp.asarray(kernel.reshape(width)))
  return tuple(weights)


def _names(stages: Stages) -> list[list[str]]:
  """Return the names of convolutions: torchvision counts every operation."""
  names, index = [], 0
  for stage in stages:
    # A rectifier follows every convolution, a halving every stage.
    names.append([f"features_{index + 2 * i}" for i in range(len(stage))])
    index += 2 * len(stage) + 1
  return names
