"""What a run has beside its network: teacher, features, discriminator."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp

from jaxflow import models, pretrained
from jaxflow.config import registry
from jaxflow.errors import UsageError
from jaxflow.methods import METHODS
from jaxflow.paths import Path
from jaxflow.runs import model as build
from jaxflow.runs.role_checks import (
  check_equal,
  check_features,
  check_weights,
  feature_networks,
)
from jaxflow.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class Roles:
  """Networks that a loss takes besides the one that it trains.

  Attributes:
    teacher: The teacher's model, or None.
    features: The frozen network through which samples are seen, or None.
    channels: The number of channels of every layer of features.
    distances: Distances of features, by the argument of the loss.
    log_weights: Learned log-weights, by the argument of the loss.
    discriminator: The discriminator, or None.
  """

  teacher: build.Model | None
  features: models.Features | None
  channels: tuple[int, ...]
  distances: dict[str, pretrained.FeatureDistance]
  log_weights: dict[str, models.LogWeight]
  discriminator: models.Discriminator | None

  @classmethod
  def of(cls, model: build.Model) -> Self:
    """Build what a config asks for; raise UsageError where it is wrong."""
    features = _features(model)
    options = model.loss_options()
    distances = _of_type(pretrained.FeatureDistance, options)
    log_weights = _of_type(models.LogWeight, options)
    discriminator = _discriminator(model, features)
    check_features(model, features, distances, discriminator)
    check_weights(model)
    channels = () if features is None else _channels(features, model.shape)
    return cls(
      teacher=_teacher(model),
      features=features,
      channels=channels,
      distances=distances,
      log_weights=log_weights,
      discriminator=discriminator,
    )

  def frozen_fns(
    self, section: Mapping[str, Any], path: Path
  ) -> dict[str, Callable[[dict[str, PyTree]], Any]]:
    """Return what makes arguments of the loss from the frozen parameters.

    Args:
      section: The config's `teacher`; its `guidance` is read.
      path: The path on which the teacher must predict the velocity.
    """
    made: dict[str, Callable[[dict[str, PyTree]], Any]] = {}
    teacher, features = self.teacher, self.features
    if teacher is not None:
      made["teacher"] = lambda frozen: teacher.prediction_fn(
        frozen["teacher"],
        scale=section["guidance"],
        field="teacher.guidance",
        path=path,
      )
    if features is not None:
      for name, distance in self.distances.items():
        made[name] = lambda frozen, name=name, make=distance.make: make(
          functools.partial(features.apply, frozen["features"]),
          frozen.get(name),
        )
    return made

  def learned_fns(self) -> dict[str, Callable[[dict[str, PyTree]], Any]]:
    """Return what makes arguments of the loss from its own parameters."""
    return {
      name: lambda params, name=name, weight=weight: functools.partial(
        weight.apply, params[name]
      )
      for name, weight in self.log_weights.items()
    }

  def loss_params(self, key: Array) -> dict[str, PyTree]:
    """Return the first parameters of the loss, by its argument."""
    return {name: w.init(key) for name, w in self.log_weights.items()}

  def discriminator_fn(
    self, params: PyTree, frozen: PyTree
  ) -> Callable[[Array, PyTree], Array]:
    """Return the discriminator of parameters and of its features'."""
    assert self.discriminator is not None
    return functools.partial(self.discriminator.apply, params, frozen=frozen)

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
    """Return the frozen parameters, by role.

    Args:
      key: Random key of features that nobody trained.
      given: Those of other runs, "teacher" or "features".

    Raises:
      UsageError: If a file of trained parameters is not what it should be.
    """
    made = dict(given)
    if self.features is not None and "features" not in made:
      made["features"] = self.features.parameters(key)
    for name, distance in self.distances.items():
      if distance.read is not None:
        made[name] = distance.read(self.channels)
    return made


def _of_type(kind: type, options: Mapping[str, Any]) -> dict[str, Any]:
  return {k: v for k, v in options.items() if isinstance(v, kind)}


def _channels(
  features: models.Features, shape: tuple[int, ...]
) -> tuple[int, ...]:
  frozen = jax.eval_shape(features.init, jax.random.key(0))
  sample = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  layers = jax.eval_shape(features.apply, frozen, sample)
  return tuple(layer.shape[-1] for layer in layers)


def _features(model: build.Model) -> models.Features | None:
  section = model.config.get("features", None)
  if section is None:
    return None
  context: dict[str, Any] = {"data_shape": model.shape}
  name = section.network.name
  maker = registry.choose(
    "features.network.name", name, registry.KINDS["features"]
  )
  accepted = inspect.signature(maker).parameters
  of_run = "network" in accepted
  if of_run != bool(section.workdir):
    raise UsageError(
      f"features.workdir={section.workdir!r} with features.network.name="
      f"{name!r}: 'run', and it alone, takes the folder of a trained run"
    )
  if "file" in accepted and not section.network.get("file", None):
    raise UsageError(
      f"features.network.file is missing: {name!r} reads its parameters from "
      "a file; give its path"
    )
  if of_run:
    source = build.make_model(section.config)
    field = f"features.workdir={section.workdir!r}"
    check_equal(field, "data.shape", model.shape, source.shape)
    wrapped = section.config.get("parameterization", {}).get("name", "raw")
    edm = section.config.loss.get("prediction", "") == "edm"
    if not source.method.teaches or wrapped != "raw" or edm:
      raise UsageError(
        f"{field}: the network of this {section.config.method!r} run does not "
        "see samples as they are; give a run whose network is a velocity, "
        "without parameterization"
      )
    context |= {"network": source.network, "t": source.path.t_min}
  return registry.make(
    "features", section.network, field="features.network", **context
  )


def _discriminator(
  model: build.Model, features: models.Features | None
) -> models.Discriminator | None:
  section = model.config.get("discriminator", None)
  if section is None:
    return None
  context: dict[str, Any] = {
    "data_shape": model.shape,
    "num_classes": model.num_classes,
  }
  if features is not None:
    context["features"] = features
  elif _sees_features(section.network.name):
    raise UsageError(
      f"discriminator.network.name={section.network.name!r} sees samples "
      "through features, and features.network.name='none': choose one of "
      f"{feature_networks()}"
    )
  return registry.make(
    "discriminator", section.network, field="discriminator.network", **context
  )


def _sees_features(name: str) -> bool:
  maker = registry.choose(
    "discriminator.network.name", name, registry.KINDS["discriminator"]
  )
  return "features" in inspect.signature(maker).parameters


def _teacher(model: build.Model) -> build.Model | None:
  config = model.config
  saved = config.get("teacher", {}).get("config", None)
  if saved is None:
    if "teacher" in model.method.needs:
      raise UsageError(
        f"teacher.workdir='' but method={config.method!r} needs a teacher: "
        f"give the folder of a trained run of {teachers()}, "
        "--config.teacher.workdir=FOLDER"
      )
    return None
  teacher = build.make_model(saved)
  if not teacher.method.teaches:
    raise UsageError(
      f"teacher.workdir={config.teacher.workdir!r} is a run of "
      f"{saved.method!r}, whose network is no velocity: give one of "
      f"{teachers()}"
    )
  # Guidance that a loss learns from two calls of its teacher.
  omega_max = config.loss.get("omega_max", 1)
  if omega_max != 1:
    teacher.check_guidance(omega_max, "loss.omega_max")
    if config.teacher.guidance != 1:
      raise UsageError(
        f"teacher.guidance={config.teacher.guidance}: this method guides its "
        "teacher itself, up to loss.omega_max; set it to 1"
      )
  field = f"teacher.workdir={config.teacher.workdir!r}"
  for name, mine, its in (
    ("data.shape", model.shape, teacher.shape),
    ("data.num_classes", model.num_classes, teacher.num_classes),
  ):
    check_equal(field, name, mine, its)
  return teacher


def teachers() -> str:
  """Return the names of the methods whose runs can teach."""
  return ", ".join(name for name, row in METHODS.items() if row.teaches)
