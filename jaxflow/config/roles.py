"""From a config to the networks that a loss takes besides its own."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow import conditions, models, options, pretrained
from jaxflow.config import registry
from jaxflow.config.components import Config, at, methods
from jaxflow.config.models import make_model
from jaxflow.data import latent_space
from jaxflow.errors import UsageError, inside
from jaxflow.methods import Method
from jaxflow.plans import Model, Roles
from jaxflow.plans.roles import Companion, feature_channels


def make_roles(config: Config, model: Model) -> Roles:
  """Build the other networks of a resolved config and its model."""
  features = _features(config, model)
  distances = _of_type(pretrained.FeatureDistance, model.loss_options)
  discriminator = _discriminator(config, model, features)
  _check_features(config, model, features, distances, discriminator)
  _check_terms(config, model)
  teacher = _teacher(config, model)
  companions = {}
  if discriminator is not None:
    companions["discriminator"] = _judge(discriminator)
  if "fake_score" in config and teacher is not None:
    companions["fake_score"] = _fake_score(config, model, teacher)
  role = model.method.role_of_teacher
  return Roles(
    teacher=teacher,
    teacher_guidance=config.get("teacher", {}).get("guidance", 1.0),
    teacher_jumps=role is not None and role.jumps,
    features=features,
    channels=feature_channels(features, model.shape) if features else (),
    sees=_sees(model),
    distances=distances,
    log_weights=_of_type(models.LogWeight, model.loss_options),
    companions=companions,
  )


def teachers(student: Method | None = None) -> str:
  """Return the names of the methods whose runs can teach, any or a student."""
  return ", ".join(
    name
    for name, row in methods().items()
    if (row.teaches if student is None else row.can_teach(student))
  )


def check_equal(source: str, name: str, mine: Any, its: Any) -> None:
  """Raise UsageError if a value of this run is not that of another."""
  if mine != its:
    raise UsageError(
      f"{source}: its {name} is {its}, this run's is {mine}; they must agree"
    )


def _of_type(kind: type, options: Mapping[str, Any]) -> dict[str, Any]:
  return {k: v for k, v in options.items() if isinstance(v, kind)}


def _sees(model: Model) -> tuple[str, ...]:
  """Return the arguments of the loss that are the feature network."""
  roles = options.marked(model.method.loss, options.Role)
  return tuple(k for k, role in roles.items() if role.section == "features")


def _picture_range(
  config: Config, model: Model
) -> tuple[np.ndarray, np.ndarray] | None:
  """Return the ends of pictures, scaled as samples are; None of no pictures."""
  section = config.data
  if len(model.shape) != 3 or latent_space(section.name, section.data_dir):
    return None
  if section.get("offset") is None:
    return np.full(1, -1.0), np.full(1, 1.0)
  offset, scale = np.asarray(section.offset), np.asarray(section.scale)
  low, high = ((end - offset) / scale for end in section.range)
  return low, high


def _features(config: Config, model: Model) -> models.Features | None:
  section = config.get("features", None)
  if section is None:
    return None
  context: dict[str, Any] = {"data_shape": model.shape}
  name = section.network.name
  maker = registry.maker_of("features", name, field="features.network")
  accepted = inspect.signature(maker).parameters
  if "picture_range" in accepted:
    context["picture_range"] = _picture_range(config, model)
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
    source = make_model(section.config)
    field = f"features.workdir={section.workdir!r}"
    check_equal(field, "data.shape", model.shape, source.shape)
    wrapped = source.parameterization != "raw" or source.prediction == "edm"
    if not source.method.teaches or wrapped:
      raise UsageError(
        f"{field}: the network of this {source.name!r} run does not see "
        "samples as they are; give a run whose network is a velocity, without "
        "parameterization"
      )
    context |= {"network": source.network, "t": source.path.t_min}
  return registry.make(
    "features", section.network, field="features.network", **context
  )


def _discriminator(
  config: Config, model: Model, features: models.Features | None
) -> models.Discriminator | None:
  section = config.get("discriminator", None)
  if section is None:
    return None
  field = "discriminator.network"
  name, given = section.network.name, {}
  maker = registry.maker_of("discriminator", name, field=field)
  if features is not None:
    given["features"] = features
  elif "features" in inspect.signature(maker).parameters:
    raise UsageError(
      f"discriminator.network.name={name!r} sees samples through features, "
      "and features.network.name='none': choose one of "
      f"{_feature_networks()}"
    )
  made = registry.make(
    "discriminator",
    section.network,
    field=field,
    data_shape=model.shape,
    num_classes=model.num_classes,
    **given,
  )
  roles = options.marked(model.method.loss, options.Role).values()
  if made is not None and not made.timed and any(r.timed for r in roles):
    raise UsageError(
      f"discriminator.network.timed=False: {model.name!r} shows it points at "
      "several times; set it to True, and discriminator.times.name to "
      "'loss_pairs'"
    )
  return made


def _judge(discriminator: models.Discriminator) -> Companion:
  """Return a discriminator as a network that learns beside the student.

  It is called as `(x, cond)` or as `(x, cond, s)`; one that is not timed leaves
  s out.
  """
  timed = discriminator.timed

  def arguments(params, frozen):
    features = frozen.get("features")

    def judge(x, cond, s=None):
      time = {"s": s} if timed else {}
      return discriminator.apply(params, x, cond, frozen=features, **time)

    return {"discriminator": judge}

  return Companion(
    init=lambda key, frozen: discriminator.init(key), arguments=arguments
  )


def _fake_score(config: Config, model: Model, teacher: Model) -> Companion:
  """Return a second teacher that learns, and the critic that sees with it."""
  sees = config.critic.sees
  registry.choose("critic.sees", sees, dict.fromkeys(("fake_score", "teacher")))
  heads = _heads(config, model, teacher)

  def init(key, frozen):
    # A copy: the state must not hold one array twice.
    params = {"network": jax.tree.map(jnp.copy, frozen["teacher"])}
    return params if heads is None else params | {"critic": heads.init(key)}

  def arguments(params, frozen):
    network = params["network"]
    score = teacher.network_fn(network, path=model.path)
    if heads is None:
      return {"fake_score": score}
    seen = frozen["teacher"] if sees == "teacher" else network
    hidden = teacher.hidden_fn(seen, model.path)

    apply = functools.partial(heads.apply, params["critic"])

    def critic(xt, t, cond):
      return apply(hidden(xt, t, cond), cond)

    return {"fake_score": score, "critic": critic}

  return Companion(init=init, arguments=arguments)


def _heads(config: Config, model: Model, teacher: Model) -> models.Heads | None:
  """Return the critic's heads on hidden activations, None without a critic."""
  name = config.critic.network.name
  if name == "none":
    return None
  time = jax.ShapeDtypeStruct((1,), jnp.float32)
  params = jax.eval_shape(teacher.network.init, jax.random.key(0))
  with inside("teacher.config"):
    layers = jax.eval_shape(
      lambda params, xt, t, cond: teacher.hidden_fn(params, model.path)(
        xt, t, cond
      ),
      params,
      jax.ShapeDtypeStruct((1, *model.shape), jnp.float32),
      time,
      conditions.shapes(model.null_cond, 1),
    )
  return registry.make(
    "critic",
    config.critic.network,
    field="critic.network",
    hidden_channels=tuple(layer.shape[-1] for layer in layers),
    num_classes=model.num_classes,
  )


def _teacher(config: Config, model: Model) -> Model | None:
  saved = config.get("teacher", {}).get("config", None)
  if saved is None:
    if "teacher" in model.method.needs:
      raise UsageError(
        f"teacher.workdir='' but method={config.method!r} needs a teacher: "
        f"give the folder of a trained run of {teachers(model.method)}, "
        "--config.teacher.workdir=FOLDER"
      )
    return None
  teacher = make_model(saved)
  field = f"teacher.workdir={config.teacher.workdir!r}"
  role = model.method.role_of_teacher
  jumps = role is not None and role.jumps
  if not teacher.method.can_teach(model.method):
    kind = "no consistency function of all times" if jumps else "no velocity"
    raise UsageError(
      f"{field} is a run of {teacher.name!r}, whose network is {kind}: "
      f"give one of {teachers(model.method)}"
    )
  if jumps:
    # A velocity can be converted to another path, a jump cannot.
    check_equal(field, "path", model.path, teacher.path)
  guided = options.switched_on(
    model.method.loss, options.GuidesTeacher, config.loss
  )
  for name, scale in guided.items():
    teacher.check_guidance(**{f"loss.{name}": scale})
    if config.teacher.guidance != 1:
      raise UsageError(
        f"teacher.guidance={config.teacher.guidance}: this method guides its "
        f"teacher itself, up to loss.{name}; set it to 1"
      )
  check_equal(field, "data.shape", model.shape, teacher.shape)
  check_equal(field, "data.num_classes", model.num_classes, teacher.num_classes)
  if not conditions.same(model.null_cond, teacher.null_cond):
    both = model.null_cond, teacher.null_cond
    check_equal(field, "condition", *map(conditions.describe, both))
    raise UsageError(
      f"{field}: its network has another null condition than this run's; they "
      "must agree"
    )
  for name in ("offset", "scale", "cond_offset", "cond_scale"):
    mine, its = config.data[name], saved.data[name]
    if None not in (mine, its):
      check_equal(field, f"data.{name}", tuple(mine), tuple(its))
  if config.teacher.guidance != 1:
    teacher.check_guidance(**{"teacher.guidance": config.teacher.guidance})
  return teacher


def _check_features(
  config: Config,
  model: Model,
  features: models.Features | None,
  distances: dict[str, pretrained.FeatureDistance],
  discriminator: models.Discriminator | None,
) -> None:
  """Raise UsageError unless features are there exactly if something sees."""
  users = [f"loss.{x}.name={config.loss[x].name!r}" for x in distances]
  if features is None and users:
    raise UsageError(
      f"{users[0]} compares features, and features.network.name='none': choose "
      f"one of {_feature_networks()}"
    )
  sees = None if discriminator is None else discriminator.features
  if sees not in (None, features):
    raise UsageError(
      "discriminator.network.features: a run has one feature network; name it "
      "in features.network"
    )
  unseen = not (users or _sees(model)) and sees is None
  if features is not None and unseen:
    raise UsageError(
      f"features.network.name={config.features.network.name!r}: nothing sees "
      "through it; set it to 'none', or a distance to 'lpips' or the "
      "discriminator to 'projected'"
    )


def _check_terms(config: Config, model: Model) -> None:
  """Raise UsageError unless a term has both its weight and its network."""
  loss = model.method.loss
  roles = options.marked(loss, options.Role)
  for name, term in options.marked(loss, options.Term).items():
    field = f"loss.{term.argument}"
    if role := roles.get(term.argument):
      field = f"{role.section}.network"
    network = at(config, field).name
    if bool(config.loss[name]) != (network != "none"):
      raise UsageError(
        f"loss.{name}={config.loss[name]} with {field}.name={network!r}: the "
        "term needs a weight above 0 and a network; set both, or neither"
      )


def _feature_networks() -> str:
  return ", ".join(k for k in registry.KINDS["features"] if k != "none")
