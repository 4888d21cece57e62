"""Networks behind a pure boundary: `init(key)` and `apply(params, ...)`."""

from jaxflow.models.classifier import Classifier, classifier
from jaxflow.models.discriminators import (
  Discriminator,
  Heads,
  conv_discriminator,
  feature_heads,
  projected_discriminator,
)
from jaxflow.models.dit import SIZES, dit
from jaxflow.models.extractors import Extractor
from jaxflow.models.features import (
  Features,
  conv_features,
  hidden_features,
  pixel_features,
)
from jaxflow.models.fitting import Fitted, fitted
from jaxflow.models.log_weights import (
  LogWeight,
  log_weight,
  pair_log_weight,
)
from jaxflow.models.lora import Adapter, lora
from jaxflow.models.mlp import mlp
from jaxflow.models.mp_unet import mp_unet
from jaxflow.models.network import Network, check_network, functional
from jaxflow.models.transformer import stack_blocks, unstack_blocks
from jaxflow.models.unet import unet
from jaxflow.models.unet2d import unet2d

__all__ = [
  "SIZES",
  "Adapter",
  "Classifier",
  "Discriminator",
  "Extractor",
  "Features",
  "Fitted",
  "Heads",
  "LogWeight",
  "Network",
  "check_network",
  "classifier",
  "conv_discriminator",
  "conv_features",
  "dit",
  "feature_heads",
  "fitted",
  "functional",
  "hidden_features",
  "log_weight",
  "lora",
  "mlp",
  "mp_unet",
  "pair_log_weight",
  "pixel_features",
  "projected_discriminator",
  "stack_blocks",
  "unet",
  "unet2d",
  "unstack_blocks",
]
