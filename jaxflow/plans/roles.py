"""The networks that a loss takes besides the one that it trains."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxflow import flow_maps, models, pretrained
from jaxflow.paths import Path
from jaxflow.plans.model import Model
from jaxflow.training.companions import ArgumentsFn
from jaxflow.types import Array, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Companion:
  """A network that learns beside the student."""

  # (key, frozen parameters by role) -> its first parameters.
  init: Callable[[Array, Mapping[str, PyTree]], PyTree]
  # Makes arguments of the losses, of its own and of the student's.
  arguments: ArgumentsFn


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roles:
  """Networks that a loss takes besides the one that it trains."""

  teacher: Model | None
  teacher_guidance: float  # Guidance scale.
  teacher_jumps: bool  # Whether the loss takes its flow map, no velocity.
  features: models.Features | None  # Frozen; samples are seen through it.
  channels: tuple[int, ...]  # Of every layer of features.
  sees: tuple[str, ...]  # The loss's arguments that are the features.
  # Distances of features and learned log-weights, by the loss's argument.
  distances: Mapping[str, pretrained.FeatureDistance]
  log_weights: Mapping[str, models.LogWeight]
  companions: Mapping[str, Companion]  # By their sections.

  def frozen_fns(
    self, path: Path
  ) -> dict[str, Callable[[dict[str, PyTree]], Any]]:
    """Return makers of the loss's arguments from the frozen parameters."""
    made: dict[str, Callable[[dict[str, PyTree]], Any]] = {}
    teacher, features = self.teacher, self.features
    if teacher is not None:
      wrap = teacher.flow_map if self.teacher_jumps else flow_maps.free
      made["teacher"] = lambda frozen: wrap(
        teacher.network_fn(frozen["teacher"], self.teacher_guidance, path=path)
      )
    if features is not None:
      for name in self.sees:
        made[name] = lambda frozen: functools.partial(
          features.apply, frozen["features"]
        )
      for name, distance in self.distances.items():
        made[name] = lambda frozen, name=name, make=distance.make: make(
          functools.partial(features.apply, frozen["features"]),
          frozen.get(name),
        )
    return made

  def learned_fns(self) -> dict[str, Callable[[dict[str, PyTree]], Any]]:
    """Return makers of the loss's arguments from its own parameters."""
    return {
      name: lambda params, name=name, weight=weight: functools.partial(
        weight.apply, params[name]
      )
      for name, weight in self.log_weights.items()
    }

  def loss_params(self, key: Array) -> dict[str, PyTree]:
    """Return the first parameters of the loss, by its argument."""
    return {name: w.init(key) for name, w in self.log_weights.items()}

  def frozen_shapes(self) -> dict[str, PyTree]:
    """Return the shapes of the frozen parameters, by role."""

    def init(key):
      made = {}
      if self.teacher is not None:
        made["teacher"] = self.teacher.network.init(key)
      if self.features is not None:
        made["features"] = self.features.init(key)
      for name, distance in self.distances.items():
        if distance.init is not None:
          made[name] = distance.init(self.channels)
      return made

    return jax.eval_shape(init, jax.random.key(0))

  def frozen(self, key: Array, given: dict[str, PyTree]) -> dict[str, PyTree]:
    """Return the frozen parameters, by role."""
    made = dict(given)
    if self.features is not None and "features" not in made:
      made["features"] = self.features.parameters(key)
    for name, distance in self.distances.items():
      if distance.read is not None:
        made[name] = distance.read(self.channels)
    return made


def feature_channels(
  features: models.Features, shape: tuple[int, ...]
) -> tuple[int, ...]:
  """Return the number of channels of every layer of features."""
  frozen = jax.eval_shape(features.init, jax.random.key(0))
  sample = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  layers = jax.eval_shape(features.apply, frozen, sample)
  return tuple(layer.shape[-1] for layer in jax.tree.leaves(layers))
