"""From a config to objects."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxflow import guidance, predictions, sampling, solvers
from jaxflow.config import Config, registry
from jaxflow.errors import UsageError
from jaxflow.methods import METHODS, Method
from jaxflow.models import Network
from jaxflow.paths import Path
from jaxflow.predictions import Prediction, conversions
from jaxflow.types import Array, FlowMap, ModelFn, PyTree


@dataclasses.dataclass(frozen=True)
class Model:
  """A config's method, path and network, and what follows from them.

  Attributes:
    config: The config, with `data.shape` and `data.num_classes` set.
    method: The row of METHODS.
    path: The path.
    network: `init` and `apply`.
  """

  config: Config
  method: Method
  path: Path
  network: Network

  @property
  def num_classes(self) -> int:
    """Number of labels; 0 for an unconditional model."""
    return self.config.data.num_classes

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of one sample."""
    return tuple(self.config.data.shape)

  def component(
    self, kind: str, specification: Any, field: str, **context: Any
  ) -> Any:
    """Make a component with this path, method and training as context.

    Times that must know which rows the loss treats in which way are told.
    """
    layout = ("block", "num_steps")
    loss = self.config.loss
    return registry.make(
      kind,
      specification,
      field=field,
      default=self.method.sampler,
      path=self.path,
      t_min=self.path.t_min,
      t_max=self.path.t_max,
      batch_size=self.config.train.batch_size,
      steps=self.config.train.steps,
      **{k: loss[k] for k in layout if k in loss},
      **context,
    )

  def flow_map(self) -> Callable[[ModelFn], FlowMap]:
    """Return what makes a flow map of a network."""
    return self.component("flow_map", self.config.flow_map, "flow_map")

  def loss_options(self) -> dict[str, Any]:
    """Return the keyword arguments of the loss."""
    config = self.config
    accepted = inspect.signature(self.method.loss).parameters
    options = {
      k: self.component(k, v, f"loss.{k}") if k in registry.KINDS else v
      for k, v in config.loss.items()
    }
    options["path"] = self.path
    if "sample_times" in accepted:
      options["sample_times"] = self.component("times", config.times, "times")
    if "num_classes" in accepted:
      options["num_classes"] = self.num_classes
    if "flow_map" in accepted:
      options["flow_map"] = self.flow_map()
    return options

  def prediction_fn(
    self,
    params: PyTree,
    scale: float,
    field: str,
    *,
    interval: tuple[float, float] | None = None,
    target: Prediction = "velocity",
    path: Path | None = None,
  ) -> ModelFn:
    """Return the network as one that predicts `target`, guided if scale != 1.

    Args:
      params: The network's parameters.
      scale: Guidance scale.
      field: The config field that says so, for messages.
      interval: Times outside of which the scale is 1.
      target: What to predict.
      path: Another path, on which to predict the velocity.
    """
    model_fn = functools.partial(self.network.apply, params)
    kind = self.config.loss.get("prediction", "velocity")
    sigma_data = self.config.loss.get("sigma_data", 0.5)
    if target == "velocity":
      model_fn = conversions.on_path(
        model_fn,
        source=self.path,
        target=path or self.path,
        prediction=kind,
        sigma_data=sigma_data,
      )
    else:
      model_fn = predictions.as_prediction(
        model_fn, self.path, source=kind, target=target, sigma_data=sigma_data
      )
    if scale != 1:
      self.check_guidance(scale, field)
    return guidance.classifier_free(
      model_fn, scale=scale, num_classes=self.num_classes, interval=interval
    )

  def check_guidance(self, scale: float, field: str, off: int = 1) -> None:
    """Raise UsageError unless the network can be guided.

    Args:
      scale: Guidance scale that is wanted.
      field: The config field that says so.
      off: Value of the field without guidance.
    """
    if not self.num_classes:
      raise UsageError(
        f"{field}={scale}: the model is unconditional; set it to {off}"
      )
    if not self.config.loss.get("label_dropout", 0):
      raise UsageError(
        f"{field}={scale}: the network never saw the null label; train it with "
        f"loss.label_dropout=0.1, or set {field} to {off}"
      )

  def sampled(self, target: Prediction = "velocity") -> Callable[..., ModelFn]:
    """Return what makes of parameters the network as the run is sampled.

    It is guided by `sample.guidance`, inside the interval that `sample` says.

    Args:
      target: What it predicts.

    Returns:
      `(params) -> network`.

    Raises:
      UsageError: If the network cannot be guided so.
    """
    scale = self.config.sample.guidance
    if scale != 1:
      if self.config.model.get("guidance_inputs", False):
        raise UsageError(
          f"sample.guidance={scale}: guidance is an input of this network; set "
          "flow_map.omega, and sample.guidance to 1"
        )
      self.check_guidance(scale, "sample.guidance")
    return functools.partial(
      self.prediction_fn,
      scale=scale,
      field="sample.guidance",
      interval=self._guidance_interval(),
      target=target,
    )

  def make_sampler(self, nfe: int, field: str = "nfe") -> Callable[..., Array]:
    """Return the jitted sampler `(params, noise, key, cond) -> samples`."""
    sample = self.config.sample
    sampler = self.component("sampler", sample.sampler, "sample.sampler")
    steps = self.num_steps(nfe, field, sampler)
    grid = self.component("grid", sample.grid, "sample.grid")
    target: Prediction = "velocity"
    if isinstance(sampler, sampling.Denoising):
      target = "data"
      function_of = self.sampled(target)
    else:
      network_of, maker = self.sampled(), self.flow_map()

      def function_of(params):
        return maker(network_of(params))

    try:
      times = grid(steps + 1)
    except ValueError as error:
      raise UsageError(f"sample.grid with {field}={nfe}: {error}") from error
    self._check_prediction(times[:-1], target)
    return sampling.make_sampler(
      function_of, sampler=sampler, path=self.path, times=times
    )

  def _check_prediction(self, times: Array, target: Prediction) -> None:
    """Raise UsageError if a prediction cannot be converted on the way."""
    source = self.config.loss.get("prediction", "velocity")
    source = "data" if source == "edm" else source
    one = jnp.ones_like(times)
    value = predictions.convert(
      self.path, one, one, times, source=source, target=target
    )
    if not jnp.isfinite(value).all():
      raise UsageError(
        f"loss.prediction={source!r} gives no {target} at t={times[0]:g} of "
        f"path.name={self.config.path.name!r}: predict velocity, data or v, or "
        "take another path"
      )

  def _guidance_interval(self) -> tuple[float, float] | None:
    """Return the times inside of which sampling is guided, None for all."""
    sample = self.config.sample
    low, high = sample.guidance_start, sample.guidance_end
    if low is None and high is None:
      return None
    low = self.path.t_min if low is None else low
    high = self.path.t_max if high is None else high
    if low > high:
      raise UsageError(
        f"sample.guidance_start={low} is above sample.guidance_end={high}: no "
        "time is guided; exchange them, or set sample.guidance to 1"
      )
    return low, high

  def num_steps(self, nfe: int, field: str, sampler: sampling.Sampler) -> int:
    """Return how many steps make the `nfe` network calls that `field` asks."""
    if isinstance(sampler, sampling.Denoising) and nfe >= 1:
      try:
        sampler.check_path(self.path)
        return sampler.num_steps(nfe)
      except ValueError as error:
        name = self.config.sample.sampler.name
        raise UsageError(
          f"{field}={nfe} with sample.sampler={name!r}: {error}"
        ) from error
    solver = self.config.flow_map.get("solver", {}).get("name", "")
    calls = solvers.EVALUATIONS.get(solver, 1)
    if nfe < 1 or nfe % calls:
      need = "at least 1" if calls == 1 else f"a multiple of {calls}"
      by = f" with flow_map.solver={solver!r}" if calls > 1 else ""
      raise UsageError(f"{field}={nfe}: must be {need}{by}")
    return nfe // calls


def make_model(config: Config) -> Model:
  """Build what a config with `data.shape` and `data.num_classes` stands for.

  Raises:
    UsageError: If a field is wrong; the message names it.
  """
  method = registry.choose("method", config.method, METHODS)
  path = registry.make("path", config.path, field="path")
  network = registry.make(
    "model",
    config.model,
    field="model",
    num_classes=config.data.num_classes,
    data_shape=tuple(config.data.shape),
  )
  wrap = registry.make(
    "parameterization",
    config.get("parameterization", {"name": "raw"}),
    field="parameterization",
    path=path,
  )
  model = Model(config, method, path, _wrapped(network, wrap))
  if "labels" in method.needs and not model.num_classes:
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
      model.check_guidance(config.loss[name], f"loss.{name}", off)
  omega_max = config.loss.get("omega_max", 1)
  if model.num_classes and omega_max != 1 and "label_dropout" in config.loss:
    model.check_guidance(omega_max, "loss.omega_max")
  return model


def _wrapped(network: Network, wrap: Callable[[ModelFn], ModelFn]) -> Network:
  """Return a network whose `apply` is wrapped, whatever its parameters."""

  def apply(params, xt, t, s, cond, key=None):
    model_fn = functools.partial(network.apply, params, key=key)
    return wrap(model_fn)(xt, t, s, cond)

  return dataclasses.replace(network, apply=apply)
