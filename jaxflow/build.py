"""From a config to objects."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxflow import guidance, predictions, registry, sampling, solvers
from jaxflow.config import Config
from jaxflow.errors import UsageError
from jaxflow.methods import METHODS, Method
from jaxflow.models import Network
from jaxflow.paths import Path
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

  def component(self, kind: str, specification: Any, field: str) -> Any:
    """Make a component with this path's times as context."""
    return registry.make(
      kind,
      specification,
      field=field,
      t_min=self.path.t_min,
      t_max=self.path.t_max,
      batch_size=self.config.train.batch_size,
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
    options["sample_times"] = self.component("times", config.times, "times")
    if "num_classes" in accepted:
      options["num_classes"] = self.num_classes
    if "flow_map" in accepted:
      options["flow_map"] = self.flow_map()
    return options

  def velocity_fn(self, params: PyTree, scale: float, field: str) -> ModelFn:
    """Return the network as a velocity network, guided where scale != 1."""
    model_fn = predictions.as_prediction(
      functools.partial(self.network.apply, params),
      self.path,
      source=self.config.loss.get("prediction", "velocity"),
      target="velocity",
    )
    if scale != 1:
      self._check_guidance(scale, field)
    return guidance.classifier_free(
      model_fn, scale=scale, num_classes=self.num_classes
    )

  def _check_guidance(self, scale: float, field: str, off: int = 1) -> None:
    if not self.num_classes:
      raise UsageError(
        f"{field}={scale}: the model is unconditional; set it to {off}"
      )
    if not self.config.loss.get("label_dropout", 0):
      raise UsageError(
        f"{field}={scale}: the network never saw the null label; train it with "
        f"loss.label_dropout=0.1, or set {field} to {off}"
      )

  def make_sampler(self, nfe: int, field: str = "nfe") -> Callable[..., Array]:
    """Return the jitted sampler `(params, noise, key, cond) -> samples`."""
    sample = self.config.sample
    steps = self.num_steps(nfe, field)
    if sample.guidance != 1:
      self._check_guidance(sample.guidance, "sample.guidance")
    grid = self.component("grid", sample.grid, "sample.grid")
    try:
      times = grid(steps + 1)
    except ValueError as error:
      raise UsageError(f"sample.grid: {error}") from error
    self._check_prediction(times[:-1])
    maker = self.flow_map()

    def flow_map_of(params):
      return maker(self.velocity_fn(params, sample.guidance, "sample.guidance"))

    return sampling.make_sampler(
      flow_map_of,
      sampler=self.method.sampler,
      path=self.path,
      times=times,
    )

  def _check_prediction(self, times: Array) -> None:
    """Raise UsageError if a prediction is no velocity where samples start."""
    source = self.config.loss.get("prediction", "velocity")
    one = jnp.ones_like(times)
    velocity = predictions.convert(
      self.path, one, one, times, source=source, target="velocity"
    )
    if not jnp.isfinite(velocity).all():
      raise UsageError(
        f"loss.prediction={source!r} gives no velocity at t={times[0]:g} of "
        f"path.name={self.config.path.name!r}: predict velocity, data or v, or "
        "take another path"
      )

  def num_steps(self, nfe: int, field: str = "nfe") -> int:
    """Return how many steps make the `nfe` network calls that `field` asks."""
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
  model = Model(config, method, path, network)
  dropout = config.loss.get("label_dropout", 0)
  if dropout and not model.num_classes:
    raise UsageError(
      f"loss.label_dropout={dropout}: the data have no labels; set it to 0"
    )
  for name, off in (("omega", 1), ("kappa", 0)):
    if config.loss.get(name, off) != off:
      model._check_guidance(config.loss[name], f"loss.{name}", off)
  return model
