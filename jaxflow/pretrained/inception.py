"""Inception-v3 of the Frechet inception distance, from a local file.

The network of every published FID is a certain one of 2015, whose weights
pytorch-fid brought to PyTorch. Its features are the averages of the last map,
`pool_3` in TensorFlow's graph. sFID is of the first 7 channels of
`mixed_6/conv`: TensorFlow numbers the blocks at 17 x 17 mixed_4 to mixed_7,
torchvision Mixed_6b to Mixed_6e, so it is the branch of 1 x 1 of Mixed_6d, in
all 17 * 17 * 7 = 2023 numbers. Logits, for the Inception score, have no bias,
as ADM computes them.

References:
  Szegedy et al. 2015 (arXiv:1512.00567), table 1.
  Heusel et al. 2017 (arXiv:1706.08500), for the FID.
  Nash et al. 2021 (arXiv:2103.03841), for sFID.
  Dhariwal, Nichol 2021 (arXiv:2105.05233), evaluations/evaluator.py, for the
  layers and the missing bias.
  Seitzer 2020, pytorch-fid, for the weights and their names.
"""

import jax.numpy as jnp
from flax import nnx

from jaxflow.errors import UsageError
from jaxflow.models.extractors import Extractor
from jaxflow.models.preprocessing import PRECISION, PROTOCOLS, prepare, rgb
from jaxflow.pretrained import inception_blocks as blocks
from jaxflow.pretrained.inception_blocks import THREE, Basic, largest
from jaxflow.pretrained.torch_parameters import module_with, read_parameters
from jaxflow.types import Array

# Of the published file; its first digits are in the name.
INCEPTION_SHA256 = (
  "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
)
_SOURCE = "pt_inception-2015-12-05-6726825d.pth of pytorch-fid's releases"
_CLASSES = 1008
_SPATIAL_CHANNELS = 7
_OF_INCEPTION = ("adm", "pytorch_fid")


class Inception(nnx.Module):
  """The network; parameters are named as in pytorch-fid's file."""

  def __init__(self, rngs: nnx.Rngs):
    options = {"padding": "VALID", "rngs": rngs}
    self.Conv2d_1a_3x3 = Basic(3, 32, THREE, stride=2, **options)
    self.Conv2d_2a_3x3 = Basic(32, 32, THREE, **options)
    self.Conv2d_2b_3x3 = Basic(32, 64, THREE, rngs=rngs)
    self.Conv2d_3b_1x1 = Basic(64, 80, rngs=rngs)
    self.Conv2d_4a_3x3 = Basic(80, 192, THREE, **options)
    self.Mixed_5b = blocks.block_a(192, 32, rngs)
    self.Mixed_5c = blocks.block_a(256, 64, rngs)
    self.Mixed_5d = blocks.block_a(288, 64, rngs)
    self.Mixed_6a = blocks.block_b(288, rngs)
    self.Mixed_6b = blocks.block_c(768, 128, rngs)
    self.Mixed_6c = blocks.block_c(768, 160, rngs)
    self.Mixed_6d = blocks.block_c(768, 160, rngs)
    self.Mixed_6e = blocks.block_c(768, 192, rngs)
    self.Mixed_7a = blocks.block_d(768, rngs)
    self.Mixed_7b = blocks.BlockE(1280, by_maximum=False, rngs=rngs)
    self.Mixed_7c = blocks.BlockE(2048, by_maximum=True, rngs=rngs)
    self.fc = nnx.Linear(2048, _CLASSES, precision=PRECISION, rngs=rngs)

  def __call__(self, x: Array) -> dict[str, Array]:
    """Return features, spatial features and logits of prepared images."""
    x = self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))
    x = largest(self.Conv2d_2b_3x3(x), stride=2)
    x = largest(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), stride=2)
    x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
    x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
    x = self.Mixed_6d(x)
    spatial = x[..., :_SPATIAL_CHANNELS].reshape(x.shape[0], -1)
    x = self.Mixed_7a(self.Mixed_6e(x))
    features = self.Mixed_7c(self.Mixed_7b(x)).mean(axis=(1, 2))
    logits = jnp.matmul(features, self.fc.kernel[...], precision=PRECISION)
    return {"features": features, "spatial": spatial, "logits": logits}


def inception(*, file: str = "", protocol: str = "adm") -> Extractor:
  """Make the extractor of published scores, named "inception".

  Its outputs are features [B, 2048], spatial [B, 2023] and logits [B, 1008].

  Args:
    file: Local path of pytorch-fid's pt_inception-2015-12-05-6726825d.pth.
    protocol: "adm", as in ADM's and EDM's tables, or "pytorch_fid"; see
      `preprocessing`.
  """
  if not file:
    raise UsageError(f"file is missing: give {_SOURCE}")
  if protocol not in _OF_INCEPTION:
    raise UsageError(
      f"protocol={protocol!r}: give one of {', '.join(_OF_INCEPTION)}"
    )
  return Extractor(
    name="inception",
    protocol=protocol,
    sha256=INCEPTION_SHA256,
    params=read_parameters(
      file, Inception, sha256=INCEPTION_SHA256, source=_SOURCE
    ),
    apply=lambda params, images: module_with(Inception, params)(
      prepare(rgb(images, "Inception"), PROTOCOLS[protocol])
    ),
  )
