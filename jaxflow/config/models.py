"""From a config to its model: method, path, network, loss options."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

from jaxflow import paths, solvers
from jaxflow.config import registry
from jaxflow.config.components import Config
from jaxflow.errors import UsageError
from jaxflow.methods import METHODS, Method
from jaxflow.models import Network
from jaxflow.paths import Path
from jaxflow.plans import Model
from jaxflow.types import LossOutput, ModelFn


class Components:
  """Makes the components of a config, in the context of its path and length.

  Args:
    config: A resolved config.
    method: Its row.
    path: Its path.
  """

  def __init__(self, config: Config, method: Method, path: Path):
    self._config = config
    # Times that must know which rows the loss treats in which way are told.
    layout = ("block", "num_steps")
    self._context = {
      "default": method.sampler,
      "path": path,
      "t_min": path.t_min,
      "t_max": path.t_max,
      "batch_size": config.train.batch_size,
      "steps": config.train.steps,
      **{k: config.loss[k] for k in layout if k in config.loss},
    }

  def make(self, kind: str, specification: Any, field: str, **more: Any) -> Any:
    """Return a component; raise UsageError where it is wrong."""
    return registry.make(
      kind, specification, field=field, **{**self._context, **more}
    )


def make_model(
  config: Config,
  *,
  network: Network | None = None,
  loss: Callable[..., LossOutput] | None = None,
) -> Model:
  """Build the model of a config with `data.shape` and `data.num_classes`.

  Args:
    config: The config.
    network: The network; default: the one that the config names.
    loss: The loss; default: the method's.

  Raises:
    UsageError: If a field is wrong; the message names it.
  """
  method = registry.choose("method", config.method, METHODS)
  if loss is not None:
    method = dataclasses.replace(method, loss=loss)
  path = registry.make("path", config.path, field="path")
  made = Components(config, method, path)
  raw = _network(config) if network is None else network
  wrap = registry.make(
    "parameterization",
    config.get("parameterization", {"name": "raw"}),
    field="parameterization",
    path=path,
  )
  flow_map = made.make("flow_map", config.flow_map, "flow_map")
  solver = config.flow_map.get("solver", {}).get("name", "")
  model = Model(
    name=config.method,
    method=method,
    path=path,
    network=_wrapped(raw, wrap),
    shape=tuple(config.data.shape),
    num_classes=config.data.num_classes,
    loss_options={},
    flow_map=flow_map,
    solver=solver,
    calls=solvers.EVALUATIONS.get(solver, 1),
    prediction=config.loss.get("prediction", "velocity"),
    sigma_data=config.loss.get("sigma_data", 0.5),
    drops_labels=bool(config.loss.get("label_dropout", 0)),
    dropout_option="label_dropout" if "label_dropout" in config.loss else "",
    guidance_input=bool(config.model.get("guidance_inputs", False)),
    block=tuple(config.loss.block) if "block" in config.loss else None,
    parameterization=config.get("parameterization", {}).get("name", "raw"),
    identity=_identity(config, method, path),
    options=config.model.to_dict(),
  )
  options = _loss_options(config, model, made)
  model = dataclasses.replace(model, loss_options=options)
  _check(config, model)
  return model


def _network(config: Config) -> Network:
  if config.model.name == "given":
    raise UsageError(
      "model.name='given': the network was given to jaxflow.train; give it "
      "here as well, network=jaxflow.Network(init, apply)"
    )
  return registry.make(
    "model",
    config.model,
    field="model",
    num_classes=config.data.num_classes,
    data_shape=tuple(config.data.shape),
  )


def _wrapped(network: Network, wrap: Callable[[ModelFn], ModelFn]) -> Network:
  """Return a network whose `apply` is wrapped, whatever its parameters."""

  def apply(params, xt, t, s, cond, key=None):
    model_fn = functools.partial(network.apply, params, key=key)
    return wrap(model_fn)(xt, t, s, cond)

  return dataclasses.replace(network, apply=apply)


def _loss_options(
  config: Config, model: Model, made: Components
) -> dict[str, Any]:
  """Return the keyword arguments of the loss."""
  accepted = inspect.signature(model.method.loss).parameters
  options = {
    k: made.make(k, v, f"loss.{k}") if k in registry.KINDS else v
    for k, v in config.loss.items()
  }
  options["path"] = model.path
  if "times" in config:
    options["sample_times"] = made.make("times", config.times, "times")
  options["num_classes"] = model.num_classes
  options["flow_map"] = model.flow_map
  return {k: v for k, v in options.items() if k in accepted}


def _identity(config: Config, method: Method, path: Path) -> dict[str, Any]:
  """Return what the raw network predicts, and on which path."""
  unit = paths.noise_std(path)
  wrapped = config.get("parameterization", {}).get("name", "raw")
  if wrapped == "trigonometric_from_linear" and unit == 1:
    return {"path": ("Linear", 1.0), "prediction": "velocity"}
  if wrapped == "trigonometric_from_edm":
    exploding = ("VarianceExploding", 1.0)
    return {"path": exploding, "prediction": "edm", "sigma_data": unit}
  # A consistency model's flow map says what the raw network is.
  mapped = config.loss.get("prediction", config.flow_map.name)
  velocities = ("ode_step", "average_velocity", "dyadic_velocity", "ddim_step")
  kinds = {"edm_denoiser": "edm", **dict.fromkeys(velocities, "velocity")}
  kind = kinds.get(mapped, mapped)
  identity = {"path": (type(path).__name__, unit), "prediction": kind}
  if wrapped != "raw":
    identity["parameterization"] = wrapped
  if kind in ("edm", "edm_skip", "trajectory"):
    sections = config.flow_map, config.loss
    known = (s.get("sigma_data") for s in sections)
    identity["sigma_data"] = next((x for x in known if x is not None), 0.5)
  return identity


def _check(config: Config, model: Model) -> None:
  """Raise UsageError if fields do not fit one another."""
  if "labels" in model.method.needs and not model.num_classes:
    raise UsageError(
      f"method={config.method!r} needs labels, and the data have none: take "
      "labelled data with data.conditional=True, or another method"
    )
  dropout = config.loss.get("label_dropout", 0)
  if dropout and not model.num_classes:
    raise UsageError(
      f"loss.label_dropout={dropout}: the data have no labels; set it to 0"
    )
  for name in ("num_steps", "sigma_data"):
    trained, sampled = config.loss.get(name), config.flow_map.get(name)
    if None not in (trained, sampled) and trained != sampled:
      raise UsageError(
        f"flow_map.{name}={sampled}: must be loss.{name}={trained}, with which "
        "the network is trained"
      )
  for name, off in (("omega", 1), ("kappa", 0)):
    if config.loss.get(name, off) != off:
      model.check_guidance(off, **{f"loss.{name}": config.loss[name]})
  omega_max = config.loss.get("omega_max", 1)
  if model.num_classes and omega_max != 1 and "label_dropout" in config.loss:
    model.check_guidance(**{"loss.omega_max": omega_max})
