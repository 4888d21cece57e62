"""A method with its path and network, and the networks that follow from it."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxflow import guidance, options, predictions, sampling
from jaxflow.errors import UsageError, check_range
from jaxflow.methods import Method
from jaxflow.models import Network
from jaxflow.paths import Path
from jaxflow.plans.sections import SamplePlan
from jaxflow.predictions import Parameterization, Prediction
from jaxflow.types import Array, FlowMap, ModelFn, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
  """A method, its path and its network, all built."""

  name: str  # Of the method, a key of METHODS.
  method: Method
  path: Path
  network: Network  # Behind its parameterization.
  shape: tuple[int, ...]  # Of one sample.
  num_classes: int  # 0 without classes.
  null_cond: PyTree  # Of one sample, see `conditions`; None: unconditional.
  loss_options: Mapping[str, Any]
  flow_map: Callable[[ModelFn], FlowMap]
  solver: str  # Name of the flow map's ODE solver, "" without one.
  calls: int  # Network calls of one step of the flow map.
  prediction: Parameterization
  sigma_data: float  # The data's, which an EDM network assumes.
  drops_labels: bool  # Whether training shows the null label to the network.
  dropout_option: str  # The loss's option that does so, "" without one.
  guidance_input: bool  # Whether the network sees the guidance scale.
  block: tuple[int, int] | None  # The loss's split of rows, [m, k].
  group: int | None  # Rows that the loss takes to be of one class.
  one_call: bool  # Whether the network's output is a sample.
  parameterization: str  # Name of the scales around the raw network.
  # The function of the raw network, by name of the aspect: networks that agree
  # in all aspects are the same function of the same weights.
  identity: Mapping[str, Any]
  source: Path  # The raw network's.
  options: Mapping[str, Any]  # Of the network.

  def network_fn(
    self,
    params: PyTree,
    scale: float = 1.0,
    *,
    interval: tuple[float, float] | None = None,
    target: Prediction = "velocity",
    path: Path | None = None,
  ) -> ModelFn:
    """Return the network as one that predicts `target`, guided if scale != 1.

    The scale is 1 outside of the times `interval`. `path` is the one on which
    the velocity is predicted, the model's own by default.
    """
    model_fn = functools.partial(self.network.apply, params)
    if target == "velocity":
      model_fn = predictions.on_path(
        model_fn,
        source=self.path,
        target=path or self.path,
        prediction=self.prediction,
        sigma_data=self.sigma_data,
      )
    else:
      model_fn = predictions.as_prediction(
        model_fn,
        self.path,
        source=self.prediction,
        target=target,
        sigma_data=self.sigma_data,
      )
    if scale != 1:
      self.check_guidance(scale=scale)
    return guidance.classifier_free(
      model_fn, scale=scale, null_cond=self.null_cond, interval=interval
    )

  def hidden_fn(
    self, params: PyTree, path: Path
  ) -> Callable[[Array, Array, PyTree], tuple[Array, ...]]:
    """Return `(xt, t, cond) -> hidden activations`, of points of a path.

    The network sees the points and times that it does when it predicts.
    """
    hidden, wrapped = self.network.hidden, self.parameterization
    if hidden is None or wrapped != "raw":
      raise UsageError(
        f"parameterization={wrapped!r}: the network shows no hidden "
        "activations at points of the path; give a dit, unet or mlp without "
        "parameterization"
      )

    def activations(xt, t, cond):
      seen = []

      def apply(params, xt, t, s, cond, key=None):
        seen.append(hidden(params, xt, t, s, cond))
        return xt

      shown = dataclasses.replace(self.network, apply=apply)
      model = dataclasses.replace(self, network=shown)
      model.network_fn(params, path=path)(xt, t, t, cond)
      return seen[0]

    return activations

  @property
  def label_dropout(self) -> float:
    """The share of null labels that training shows to the network."""
    return float(self.loss_options.get(self.dropout_option, 0.0))

  def check_guidance(self, off: float = 1, **scale: float) -> None:
    """Raise UsageError unless the network can be guided.

    The one `scale` has the name that the message gives it; at `off` it does
    not guide.
    """
    ((name, value),) = scale.items()
    if self.null_cond is None:
      raise UsageError(
        f"{name}={value}: the model is unconditional; set it to {off}"
      )
    if not self.drops_labels:
      option = self.dropout_option
      train = f"train it with loss.{option}=0.1, or " if option else ""
      raise UsageError(
        f"{name}={value}: the network never saw the null condition; {train}set "
        f"{name} to {off}"
      )

  def sampled(
    self, sample: SamplePlan, target: Prediction = "velocity"
  ) -> Callable[[PyTree], ModelFn]:
    """Return `(params) -> network` as a plan samples it."""
    return functools.partial(
      self.network_fn,
      scale=sample.guidance,
      interval=sample.interval,
      target=target,
    )

  def make_sampler(self, sample: SamplePlan, nfe: int) -> Callable[..., Array]:
    """Return the jitted sampler `(params, noise, key, cond) -> samples`."""
    steps = self.num_steps(sample, nfe)
    denoising = isinstance(sample.sampler, sampling.Denoising)
    target: Prediction = "data" if denoising else "velocity"
    network_of = self.sampled(sample, target)

    def function_of(params):
      model_fn = network_of(params)
      return model_fn if denoising else self.flow_map(model_fn)

    times = self.grid_times(sample, steps + 1, nfe)
    self._check_prediction(times, target)
    return sampling.make_sampler(
      function_of, sampler=sample.sampler, path=self.path, times=times
    )

  def allows(self, sample: SamplePlan, nfe: int) -> bool:
    """Return whether the sampler can make `nfe` network calls a sample."""
    try:
      self.make_sampler(sample, nfe)
    except UsageError:
      return False
    return True

  def grid_times(self, sample: SamplePlan, points: int, nfe: int) -> Array:
    """Return the times of a plan's grid, `[points]`, decreasing."""
    try:
      return sample.grid(points)
    except ValueError as error:
      raise UsageError(f"sample.grid with nfe={nfe}: {error}") from error

  def _check_prediction(self, times: Array, target: Prediction) -> None:
    """Raise UsageError if a prediction cannot be converted on the way."""
    source = "data" if self.prediction == "edm" else self.prediction

    @jax.jit  # One program in place of one an operation: sampling waits for it.
    def is_finite(times):
      t = times[:-1]
      one = jnp.ones_like(t)
      value = predictions.convert(
        self.path, one, one, t, source=source, target=target
      )
      return jnp.isfinite(value).all()

    if not is_finite(times):
      raise UsageError(
        f"prediction={source!r} gives no {target} at t={times[0]:g} of "
        f"{self.path}: predict velocity, data or v, or take another path"
      )

  def num_steps(self, sample: SamplePlan, nfe: int) -> int:
    """Return how many steps make `nfe` network calls."""
    check_range(options.CALLS, nfe=nfe)
    if self.one_call and nfe != 1:
      raise UsageError(
        f"nfe={nfe}: the network of {self.name!r} makes a sample in one call; "
        "give 1"
      )
    sampler = sample.sampler
    if isinstance(sampler, sampling.Denoising):
      try:
        sampler.check_path(self.path)
        return sampler.num_steps(nfe)
      except ValueError as error:
        raise UsageError(
          f"nfe={nfe} with sample.sampler={sample.solver!r}: {error}"
        ) from error
    if nfe % self.calls:
      need = f"a multiple of {self.calls} with solver={self.solver!r}"
      raise UsageError(f"nfe={nfe}: must be {need}")
    return nfe // self.calls
