"""From a config to its model: method, path, network, loss options."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_args

import numpy as np

from jaxflow import conditions, options, paths
from jaxflow.config import registry
from jaxflow.config.components import Config, method_of, schedule_steps
from jaxflow.errors import UsageError, inside, option_of
from jaxflow.methods import Method
from jaxflow.models import Network, check_network
from jaxflow.paths import Path
from jaxflow.plans import Model
from jaxflow.predictions import Prediction
from jaxflow.types import LossFunction, ModelFn, PyTree


def context_of(config: Config, method: Method, path: Path) -> dict[str, Any]:
  """Return what components may take from their surroundings, by argument."""
  return {
    "default": method.sampler,
    "path": path,
    "t_min": path.t_min,
    "t_max": path.t_max,
    "batch_size": config.train.batch_size,
    "steps": schedule_steps(config),
    # Times that must know which rows the loss treats in which way are told.
    **options.values(method.loss, options.Layout, config.loss),
  }


def make_model(
  config: Config,
  *,
  network: Network | None = None,
  loss: LossFunction | None = None,
) -> Model:
  """Build the model of a config with `data.shape` and `data.num_classes`.

  A network, or a loss, that is given takes the place of the config's.
  """
  method = method_of(config)
  if loss is not None:
    method = dataclasses.replace(method, loss=_in_place_of(method.loss, loss))
  path = registry.make("path", config.path, field="path")
  context = context_of(config, method, path)
  raw = _network(config) if network is None else network
  wrapped = config.get("parameterization", {"name": "raw"})
  wrap = registry.make(
    "parameterization", wrapped, field="parameterization", path=path
  )
  own = method.loss
  solver = _solver(config)
  model = Model(
    name=config.method,
    method=method,
    path=path,
    network=_wrapped(raw, wrap, wrapped["name"]),
    shape=tuple(config.data.shape),
    num_classes=config.data.num_classes,
    null_cond=_null_cond(config, raw),
    loss_options={},
    flow_map=registry.make(
      "flow_map", config.flow_map, field="flow_map", **context
    ),
    solver=solver,
    calls=registry.solver_calls(solver) if solver else 1,
    prediction=options.value(own, options.Predicts, config.loss, "velocity"),
    sigma_data=options.value(own, options.DataStd, config.loss, 0.5),
    drops_labels=bool(options.value(own, options.DropsLabels, config.loss)),
    dropout_option=next(iter(options.marked(own, options.DropsLabels)), ""),
    guidance_input=bool(config.model.get("guidance_inputs", False)),
    block=options.value(own, options.RowBlock, config.loss),
    group=options.value(own, options.RowGroup, config.loss),
    one_call=bool(options.marked(_flow_map_function(config), options.OneCall)),
    parameterization=wrapped["name"],
    identity=_identity(config, method, path),
    source=_source(config, path),
    options=config.model.to_dict(),
  )
  model = dataclasses.replace(
    model, loss_options=_loss_options(config, model, context)
  )
  _check(config, model)
  if network is not None or config.model.name not in registry.KINDS["model"]:
    check_network(
      dataclasses.replace(raw, null_cond=model.null_cond),
      shape=model.shape,
      heads=config.model.get("heads", 1),
      guidance_inputs=model.guidance_input,
    )
  return model


def _in_place_of(own: LossFunction, loss: LossFunction) -> LossFunction:
  """Return a loss behind the signature of the method's own.

  What marks its options in a config stands there; the other loss gets those
  that it names.
  """
  named = options.parameters(loss).values()
  takes_all = any(p.kind is p.VAR_KEYWORD for p in named)
  # Options that the caller has bound stay as they are.
  bound = getattr(loss, "keywords", {}).keys()
  names = {p.name for p in named} - bound
  for p in named:
    required = p.kind is p.KEYWORD_ONLY and p.default is p.empty
    if required and p.name not in options.parameters(own):
      raise UsageError(
        f"loss: it needs {p.name!r}, which {own.__name__} does not take: give "
        "it a default, or bind it with functools.partial"
      )

  @functools.wraps(own)
  def call(*arguments: Any, **given: Any) -> Any:
    taken = {
      k: v
      for k, v in given.items()
      if k in names or (takes_all and k not in bound)
    }
    return loss(*arguments, **taken)

  return call


def _flow_map_function(config: Config) -> Callable:
  """Return the function of `jaxflow.flow_maps` that a config names."""
  name = config.flow_map.name
  return inspect.unwrap(registry.maker_of("flow_map", name, field="flow_map"))


def _solver(config: Config) -> str:
  """Return the name of the flow map's ODE solver, "" without one."""
  kinds = registry.kinds_of(_flow_map_function(config))
  names = [k for k, kind in kinds.items() if kind == "solver"]
  return config.flow_map[names[0]].name if names else ""


def _cond_size(config: Config) -> int:
  """Return how many numbers a label has that is a vector, 0 without."""
  return len(config.data.cond_offset or ())


def _null_cond(config: Config, network: Network) -> PyTree:
  """Return the null condition, that of the data or what a network declares."""
  size, found = _cond_size(config), None
  if size:
    found = np.full(size, np.nan, np.float32)
  elif config.data.num_classes:
    found = np.int32(config.data.num_classes)
  if network.null_cond is None or not config.data.conditional:
    return found
  try:
    own = conditions.declared(network.null_cond)
  except ValueError as error:
    raise UsageError(f"network: null_cond: {error}") from error
  if found is None or conditions.same(own, found):
    return own
  raise UsageError(
    f"data.name={config.data.name!r} has labels with the null condition "
    f"{found}, and the network declares null_cond with "
    f"{conditions.describe(own)}: they must agree; declare that of the data, "
    "or take data with such conditions"
  )


def _network(config: Config) -> Network:
  """Return the network that a config names.

  A network declares by its arguments `num_classes` and `cond_size` what labels
  it takes, and by `null_cond` other conditions.
  """
  if config.model.name == "given":
    with inside("model"):
      return registry.KINDS["model"]["given"]()
  maker = registry.maker_of("model", config.model.name, field="model")
  size = _cond_size(config)
  if size and "cond_size" not in options.parameters(maker):
    takers = [
      k
      for k, own in registry.KINDS["model"].items()
      if "cond_size" in options.parameters(own)
    ]
    raise UsageError(
      f"model.name={config.model.name!r} takes no labels that are numbers, and "
      f"those of data.name={config.data.name!r} have {size} each: take one of "
      f"{', '.join(takers)}, or set data.label='none'"
    )
  return registry.make(
    "model",
    config.model,
    field="model",
    num_classes=config.data.num_classes,
    cond_size=size,
    data_shape=tuple(config.data.shape),
  )


def _wrapped(
  network: Network, wrap: Callable[[ModelFn], ModelFn], name: str
) -> Network:
  """Return a network whose `apply` is wrapped, whatever its parameters."""
  with option_of(f"parameterization.name={name!r}"):
    wrap(lambda xt, t, s, cond: xt)  # It may refuse the path.

  def apply(params, xt, t, s, cond, key=None):
    model_fn = functools.partial(network.apply, params, key=key)
    return wrap(model_fn)(xt, t, s, cond)

  return dataclasses.replace(network, apply=apply)


def _loss_options(
  config: Config, model: Model, context: dict[str, Any]
) -> dict[str, Any]:
  """Return the keyword arguments of the loss."""
  loss = model.method.loss
  accepted = options.parameters(loss)
  values = registry.make_options(loss, config.loss, field="loss", **context)
  values["path"] = model.path
  if "times" in config:
    values["sample_times"] = registry.make(
      "times", config.times, field="times", **context
    )
  values["null_cond"] = model.null_cond
  values["flow_map"] = model.flow_map
  return {k: v for k, v in values.items() if k in accepted}


def _source(config: Config, path: Path) -> Path:
  """Return the path of the raw network."""
  match config.get("parameterization", {}).get("name", "raw"):
    case "trigonometric_from_linear":
      return paths.Linear()
    case "trigonometric_from_edm":
      return paths.VarianceExploding()
    case "from_path":
      return registry.make(
        "path",
        config.parameterization.source,
        field="parameterization.source",
      )
  return path


def _identity(config: Config, method: Method, path: Path) -> dict[str, Any]:
  """Return prediction and path of the raw network."""
  unit = paths.noise_std(path)
  wrapped = config.get("parameterization", {}).get("name", "raw")
  if wrapped == "trigonometric_from_linear" and unit == 1:
    return {"path": ("Linear", 1.0), "prediction": "velocity"}
  if wrapped == "trigonometric_from_edm":
    exploding = ("VarianceExploding", 1.0)
    return {"path": exploding, "prediction": "edm", "sigma_data": unit}
  if wrapped == "from_path":
    source = _named(_source(config, path))
    return {"path": source, "prediction": config.parameterization.prediction}
  loss, flow_map = method.loss, _flow_map_function(config)
  kind = options.predicts(loss, flow_map, config.loss)
  identity = {"path": _named(path), "prediction": kind}
  if wrapped != "raw":
    identity["parameterization"] = wrapped
  if kind not in get_args(Prediction):
    std = options.value(loss, options.DataStd, config.loss)
    std = options.value(flow_map, options.DataStd, config.flow_map, std)
    if std is not None:
      identity["sigma_data"] = std
  return identity


def _named(path: Path) -> Any:
  """Return what networks of two paths have in common if they are the same."""
  if isinstance(path, paths.Discrete):
    return repr(path)
  return type(path).__name__, paths.noise_std(path)


def _check(config: Config, model: Model) -> None:
  """Raise UsageError if fields do not fit one another."""
  if "labels" in model.method.needs and model.null_cond is None:
    raise UsageError(
      f"method={config.method!r} needs labels, and the data have none: take "
      "labelled data with data.conditional=True, a network that declares "
      "null_cond, or another method"
    )
  loss = model.method.loss
  if model.drops_labels and model.null_cond is None:
    name = model.dropout_option
    raise UsageError(
      f"loss.{name}={config.loss[name]}: the data have no labels; set it to 0"
    )
  maps = model.method.flow_map, _flow_map_function(config)
  # A loss that takes the flow map trains the network for it.
  free = "flow_map" in options.parameters(loss)
  guided = {bool(options.marked(x, options.GuidanceInput)) for x in maps}
  read = {options.predicts(len, x, {}) for x in maps}
  if not free and (len(guided) > 1 or len(read) > 1):
    raise UsageError(
      f"flow_map.name={config.flow_map.name!r}: {config.method!r} trains no "
      f"network for it; leave it at {maps[0].__name__!r}"
    )
  check_heads(config, maps[1])
  shared = options.values(loss, options.SharedWithFlowMap, config.loss)
  for name, trained in shared.items():
    sampled = config.flow_map.get(name)
    if sampled not in (None, trained):
      raise UsageError(
        f"flow_map.{name}={sampled}: must be loss.{name}={trained}, with which "
        "the network is trained"
      )
  guides = options.marked(loss, options.Guides)
  for name, value in options.switched_on(
    loss, options.Guides, config.loss
  ).items():
    if model.null_cond is not None or not guides[name].optional:
      model.check_guidance(guides[name].off, **{f"loss.{name}": value})


def check_heads(config: Config, flow_map: Callable) -> None:
  """Raise UsageError unless the network predicts what a flow map takes.

  Of several predictions it takes the first. One of a plug-in may say nothing.
  """
  has = config.model.get("heads", 1)
  for mark in options.marked(flow_map, options.Outputs).values():
    takes = mark.number
    if has < takes or (takes == 1 and has > 1):
      raise UsageError(
        f"model.heads={has}: flow_map.name={config.flow_map.name!r} takes a "
        f"network with model.heads={takes}; change one of the two"
      )
