"""What must hold between the fields of a config that ask for other networks."""

from typing import Any

from jaxflow import models, pretrained
from jaxflow.config import registry
from jaxflow.config.files import flatten
from jaxflow.errors import UsageError
from jaxflow.runs import model as build


def check_features(
  model: build.Model,
  features: models.Features | None,
  distances: dict[str, pretrained.FeatureDistance],
  discriminator: models.Discriminator | None,
) -> None:
  """Raise UsageError unless features are there exactly if something sees."""
  users = [
    f"loss.{name}.name={model.config.loss[name].name!r}" for name in distances
  ]
  if features is None and users:
    raise UsageError(
      f"{users[0]} compares features, and features.network.name='none': choose "
      f"one of {feature_networks()}"
    )
  sees = None if discriminator is None else discriminator.features
  if sees not in (None, features):
    raise UsageError(
      "discriminator.network.features: a run has one feature network; name it "
      "in features.network"
    )
  if features is not None and not users and sees is None:
    raise UsageError(
      f"features.network.name={model.config.features.network.name!r}: "
      "nothing sees through it; set it to 'none', or a distance to 'lpips' "
      "or the discriminator to 'projected'"
    )


def check_weights(model: build.Model) -> None:
  """Raise UsageError unless a term has both its weight and its network."""
  config = model.config
  for name, field in (
    ("adversarial_weight", "discriminator.network"),
    ("perceptual_weight", "loss.perceptual"),
  ):
    if name not in config.loss:
      continue
    network = flatten(config.to_dict())[f"{field}.name"]
    if bool(config.loss[name]) != (network != "none"):
      raise UsageError(
        f"loss.{name}={config.loss[name]} with {field}.name={network!r}: the "
        "term needs a weight above 0 and a network; set both, or neither"
      )


def check_equal(field: str, name: str, mine: Any, its: Any) -> None:
  """Raise UsageError if a value of this run is not that of another."""
  if mine != its:
    raise UsageError(
      f"{field}: its {name} is {its}, this run's is {mine}; they must agree"
    )


def feature_networks() -> str:
  """Return the names of the feature networks."""
  return ", ".join(k for k in registry.KINDS["features"] if k != "none")
