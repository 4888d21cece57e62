"""Networks behind a pure boundary: `init(key)` and `apply(params, ...)`."""

from jaxflow.models.autoencoder import Autoencoder, autoencoder
from jaxflow.models.blocks import stack_blocks, unstack_blocks
from jaxflow.models.discriminators import (
  Discriminator,
  conv_discriminator,
  projected_discriminator,
)
from jaxflow.models.dit import SIZES, dit
from jaxflow.models.feature_distances import (
  FeatureDistance,
  feature_distance,
  lpips_distance,
)
from jaxflow.models.features import Features, conv_features, hidden_features
from jaxflow.models.log_weights import LogWeight, log_weight
from jaxflow.models.mlp import mlp
from jaxflow.models.network import Network, functional
from jaxflow.models.second_time import with_second_time
from jaxflow.models.unet import unet
from jaxflow.models.vgg import read_lpips_weights, vgg16

__all__ = [
  "SIZES",
  "Autoencoder",
  "Discriminator",
  "FeatureDistance",
  "Features",
  "LogWeight",
  "Network",
  "autoencoder",
  "conv_discriminator",
  "conv_features",
  "dit",
  "feature_distance",
  "functional",
  "hidden_features",
  "log_weight",
  "lpips_distance",
  "mlp",
  "projected_discriminator",
  "read_lpips_weights",
  "stack_blocks",
  "unet",
  "unstack_blocks",
  "vgg16",
  "with_second_time",
]
