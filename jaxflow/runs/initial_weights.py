"""Weights of another run as the first weights of this one."""

import jax

from jaxflow import models
from jaxflow.errors import UsageError
from jaxflow.plans import Model
from jaxflow.runs.run import Run
from jaxflow.training.state import TrainState
from jaxflow.types import PyTree


def initial_parameters(
  run: Run, template: TrainState, source: tuple[Run, TrainState] | None
) -> PyTree | None:
  """Return the weights from which `init.workdir` lets a run start, or None.

  Where this run's network sees a second time and the source's does not, the
  new embedding starts with a last layer of zeros: the network computes the
  source's function, whatever the second time is.
  """
  if source is None:
    return None
  init, model, other = run.plan.init, run.model, source[0].model
  params = source[0].select(source[1], init.ema)
  if _shapes(template.params) != _shapes(params):
    mine, its = model.options, other.options
    if mine.get("second_time") and not its.get("second_time"):
      fresh = model.network.init(jax.random.key(run.plan.seed))
      if set(fresh) - set(params) <= {"interval"}:
        params = models.with_second_time(params, fresh, data_shape=model.shape)
  check_same_network(
    template.params,
    params,
    (model, other),
    f"init.workdir={init.workdir!r}",
    "leave init.workdir out",
  )
  return params


def difference(model: Model, source: Model, name: str) -> str | None:
  """Return a line if a raw network is another function in two runs, or None."""
  mine, its = model.identity, source.identity
  differing = [
    f"{aspect} is {its.get(aspect)} there, {mine.get(aspect)} here"
    for aspect in sorted({*mine, *its})
    if mine.get(aspect) != its.get(aspect)
  ]
  if not differing:
    return None
  return (
    f"{name}: {'; '.join(differing)}: its weights are a warm start, not the "
    "same function"
  )


def check_same_network(
  mine: PyTree,
  its: PyTree,
  networks: tuple[Model, Model],
  source: str,
  remedy: str,
) -> None:
  """Raise UsageError unless two networks have the same arrays."""
  if _shapes(mine) == _shapes(its):
    return
  here, there = (
    {f"model.{k}": v for k, v in model.options.items()}
    | {"data.shape": model.shape, "data.num_classes": model.num_classes}
    for model in networks
  )
  differing = [
    f"{k} is {there.get(k)} there, {here.get(k)} here"
    for k in sorted(set(here) | set(there))
    if here.get(k) != there.get(k)
  ]
  ours, theirs = _shapes(mine), _shapes(its)
  differing = differing or [
    f"{k} is {theirs.get(k)} there, {ours.get(k)} here"
    for k in sorted({k for k, _ in ours.items() ^ theirs.items()})[:1]
  ]
  raise UsageError(
    f"{source} has another network ({'; '.join(differing)}): make them equal, "
    f"or {remedy}"
  )


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
  return {
    jax.tree_util.keystr(path): leaf.shape
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
  }
