"""Networks with published weights, read from local files."""

from jaxflow.pretrained.autoencoder import Autoencoder, autoencoder
from jaxflow.pretrained.efficientnet import efficientnet_lite0
from jaxflow.pretrained.feature_distances import (
  FeatureDistance,
  feature_distance,
  lpips_distance,
)
from jaxflow.pretrained.inception import inception
from jaxflow.pretrained.vgg import read_lpips_weights, vgg16

__all__ = [
  "Autoencoder",
  "FeatureDistance",
  "autoencoder",
  "efficientnet_lite0",
  "feature_distance",
  "inception",
  "lpips_distance",
  "read_lpips_weights",
  "vgg16",
]
