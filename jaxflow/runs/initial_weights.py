"""Weights of another run as the first weights of this one."""

from typing import Any

import jax

from jaxflow import models, paths
from jaxflow.config import Config
from jaxflow.errors import UsageError
from jaxflow.runs import model as build
from jaxflow.runs.run import Run
from jaxflow.training.state import TrainState
from jaxflow.types import PyTree


def initial_parameters(
  run: Run, template: TrainState, source: tuple[Run, TrainState] | None
) -> PyTree | None:
  """Return the weights from which `init.workdir` lets a run start, or None.

  Where this run's network sees a second time and the source's does not, the
  new embedding starts with a last layer of zeros: the network computes what
  the source computes, whatever the second time is.

  Args:
    run: The run that starts.
    template: The shapes of its state.
    source: The other run and its state, or None.

  Raises:
    UsageError: If there is no such average, or the networks differ otherwise.
  """
  if source is None:
    return None
  init = run.model.config.init
  params = source[0].select(source[1], init.ema, "init.ema")
  if _shapes(template.params) != _shapes(params):
    mine, its = run.model.config.model, source[0].model.config.model
    if mine.get("second_time") and not its.get("second_time"):
      fresh = run.model.network.init(jax.random.key(run.model.config.seed))
      if set(fresh) - set(params) <= {"interval"}:
        params = models.with_second_time(
          params, fresh, data_shape=run.model.shape
        )
  check_same_network(
    template.params,
    params,
    (run.model.config, source[0].model.config),
    f"init.workdir={init.workdir!r}",
    "leave init.workdir out",
  )
  return params


def difference(run: Run, source: Run, field: str) -> str | None:
  """Return a line on what the network stands for in the two runs, or None.

  Args:
    run: The run that starts.
    source: The run whose weights it takes.
    field: The config field that names it.
  """
  mine, its = _meaning(run.model), _meaning(source.model)
  differing = [
    f"{name} is {its.get(name)} there, {mine.get(name)} here"
    for name in sorted({*mine, *its})
    if mine.get(name) != its.get(name)
  ]
  if not differing:
    return None
  return (
    f"{field}={run.model.config[field.split('.')[0]].workdir!r}: "
    f"{'; '.join(differing)}: its weights are a warm start, not the same "
    "function"
  )


def _meaning(model: build.Model) -> dict[str, Any]:
  """Return what the raw network predicts, and on which path."""
  config, unit = model.config, paths.noise_std(model.path)
  wrapped = config.get("parameterization", {}).get("name", "raw")
  if wrapped == "trigonometric_from_linear" and unit == 1:
    return {"path": ("Linear", 1.0), "prediction": "velocity"}
  if wrapped == "trigonometric_from_edm":
    exploding = ("VarianceExploding", 1.0)
    return {"path": exploding, "prediction": "edm", "sigma_data": unit}
  # A consistency model's flow map says what the raw network is.
  named = config.loss.get("prediction", config.flow_map.name)
  velocities = ("ode_step", "average_velocity", "dyadic_velocity", "ddim_step")
  kinds = {"edm_denoiser": "edm", **dict.fromkeys(velocities, "velocity")}
  kind = kinds.get(named, named)
  meaning = {"path": (type(model.path).__name__, unit), "prediction": kind}
  if wrapped != "raw":
    meaning["parameterization"] = wrapped
  if kind in ("edm", "edm_skip", "trajectory"):
    sections = config.flow_map, config.loss
    known = (s.get("sigma_data") for s in sections)
    meaning["sigma_data"] = next((x for x in known if x is not None), 0.5)
  return meaning


def check_same_network(
  mine: PyTree,
  its: PyTree,
  configs: tuple[Config, Config],
  field: str,
  remedy: str,
) -> None:
  """Raise UsageError unless two networks have the same arrays.

  Args:
    mine: This run's parameters, or their shapes.
    its: The other's.
    configs: This run's config and the other's.
    field: The config field that names the other, with its value.
    remedy: What to do if they must differ.
  """
  if _shapes(mine) == _shapes(its):
    return
  here, there = (config.model for config in configs)
  differing = [
    f"model.{k} is {there.get(k)} there, {here.get(k)} here"
    for k in sorted(set(here) | set(there))
    if here.get(k) != there.get(k)
  ]
  raise UsageError(
    f"{field} has another network ({'; '.join(differing)}): make them equal, "
    f"or {remedy}"
  )


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
  return {
    jax.tree_util.keystr(path): leaf.shape
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
  }
