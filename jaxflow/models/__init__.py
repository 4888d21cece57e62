"""Networks behind a pure boundary: `init(key)` and `apply(params, ...)`."""

from jaxflow.models.autoencoder import Autoencoder, autoencoder
from jaxflow.models.blocks import stack_blocks, unstack_blocks
from jaxflow.models.classifier import Classifier, classifier
from jaxflow.models.discriminators import (
  Discriminator,
  conv_discriminator,
  projected_discriminator,
)
from jaxflow.models.dit import SIZES, dit
from jaxflow.models.efficientnet import efficientnet_lite0
from jaxflow.models.extractors import Extractor
from jaxflow.models.feature_distances import (
  FeatureDistance,
  feature_distance,
  lpips_distance,
)
from jaxflow.models.features import Features, conv_features, hidden_features
from jaxflow.models.inception import inception, inception_of
from jaxflow.models.log_weights import LogWeight, log_weight
from jaxflow.models.mlp import mlp
from jaxflow.models.network import Network, functional
from jaxflow.models.second_time import with_second_time
from jaxflow.models.unet import unet
from jaxflow.models.vgg import read_lpips_weights, vgg16

__all__ = [
  "SIZES",
  "Autoencoder",
  "Classifier",
  "Discriminator",
  "Extractor",
  "FeatureDistance",
  "Features",
  "LogWeight",
  "Network",
  "autoencoder",
  "classifier",
  "conv_discriminator",
  "conv_features",
  "dit",
  "efficientnet_lite0",
  "feature_distance",
  "functional",
  "hidden_features",
  "inception",
  "inception_of",
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
