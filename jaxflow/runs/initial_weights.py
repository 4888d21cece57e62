"""Weights of another run as the first weights of this one."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax

from jaxflow.errors import UsageError
from jaxflow.models import Fitted, fitted
from jaxflow.models.fitting import path_name
from jaxflow.plans import Model
from jaxflow.runs.run import Run
from jaxflow.training.state import TrainState
from jaxflow.types import PyTree

# The least share of the smaller network that a start must keep.
_LEAST = 0.5
# Modules that a line names.
_LISTED = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beginning:
  """The weights from which a run starts.

  Attributes:
    params: Those of another run; None for fresh ones, or for the teacher's.
    teacher: Whether they are the teacher's.
    fit: Makes them this network's, `(its, fresh) -> params`; None where they
      are.
    notes: Lines on what is not the source's.
  """

  params: PyTree | None = None
  teacher: bool = False
  fit: Callable[[PyTree, PyTree], PyTree] | None = None
  notes: tuple[str, ...] = ()


def beginning(run: Run, others: dict[str, tuple[Run, TrainState]]) -> Beginning:
  """Return how a run starts from another, `init` or its teacher.

  Raises UsageError if less than half of the smaller network would be kept, or
  if an adapter has nothing to change, or leaves new arrays as they are.
  """
  plan, remedy = run.plan, "leave init.workdir out"
  name, section = "init", plan.init
  if name not in others:
    if "teacher" not in others or not plan.init_student or plan.init.workdir:
      if plan.adapter is not None:
        raise UsageError(
          "adapter.name: it changes the weights of another run: give its "
          "folder, init.workdir, or begin from a teacher; or set it to 'none'"
        )
      return Beginning()
    name, section = "teacher", plan.teacher
    remedy = "set teacher.init_student=False"
  other, state = others[name]
  given = other.select(state, section.ema)
  model, its = run.model, other.model
  source = f"{name}.workdir={section.workdir!r}"
  found = check_fits(model, its, given, source, remedy)
  _check_learn(run, found)
  notes = [*_fit_notes(source, found, run, other)]
  if warm := difference(model, its, source):
    notes.append(warm)
  rows = {"rows": its.network.rows, "fresh_rows": model.network.rows}
  whole = shapes(given) == shapes(found.params) and not found.new
  return Beginning(
    params=given if name == "init" else None,
    teacher=name == "teacher",
    fit=None if whole else lambda its, own: fitted(its, own, **rows).params,
    notes=tuple(notes),
  )


def _check_learn(run: Run, found: Fitted) -> None:
  """Raise UsageError if an adapter leaves new arrays as they are."""
  if run.plan.adapter is None:
    return
  learned = jax.tree_util.tree_leaves_with_path(run.learned)
  names = {path_name(path).rpartition("/")[0] for path, _ in learned}
  if stay := [name for name in found.new if name not in names]:
    raise UsageError(
      f"adapter.whole: {_listed(stay)} would stay as they begin, and they are "
      "new: give a regular expression that is found in them, so that they learn"
    )


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


def check_fits(
  mine: Model, its: Model, params: PyTree, source: str, remedy: str
) -> Fitted:
  """Return the shapes of what a network takes of another's parameters.

  Raises UsageError if that is less than half of the smaller of the two.
  """
  told = []

  def fit(params, fresh):
    rows = {"rows": its.network.rows, "fresh_rows": mine.network.rows}
    told.append(fitted(params, fresh, **rows))
    return told[-1].params

  fresh = jax.eval_shape(mine.network.init, jax.random.key(0))
  made = jax.eval_shape(fit, params, fresh)
  found = dataclasses.replace(told[-1], params=made)
  smaller = min(size(params), size(fresh))
  if found.kept >= _LEAST * smaller:
    return found
  ours, theirs = shapes(fresh), shapes(params)
  differing = _differing(mine, its) or [
    f"{k} is {theirs.get(k)} there, {ours.get(k)} here"
    for k in sorted({k for k, _ in ours.items() ^ theirs.items()})[:1]
  ]
  raise UsageError(
    f"{source} has another network ({'; '.join(differing)}), and "
    f"{found.kept:,} of {smaller:,} numbers would stay: make them equal, or "
    f"{remedy}"
  )


def _differing(mine: Model, its: Model) -> list[str]:
  """Describe the options in which two networks differ."""
  here, there = (
    {f"model.{k}": v for k, v in model.options.items()}
    | {"data.shape": model.shape, "data.num_classes": model.num_classes}
    for model in (mine, its)
  )
  return [
    f"{k} is {there.get(k)} there, {here.get(k)} here"
    for k in sorted(set(here) | set(there))
    if here.get(k) != there.get(k)
  ]


def _fit_notes(
  source: str, found: Fitted, run: Run, other: Run
) -> Iterator[str]:
  """Yield a line on what the first weights are, if not simply the source's."""
  parts = [
    f"{what}: {_listed(names)}"
    for what, names in (
      ("without effect at first", found.silent),
      ("new", found.anew),
      ("left out", found.left),
    )
    if names
  ]
  parts += _differing(run.model, other.model)
  if parts:
    kept = f"{found.kept:,} of {size(found.params):,} numbers are its"
    yield f"{source}: {kept}; {'; '.join(parts)}"
  mine, its = run.plan.data.class_names, other.plan.data.class_names
  if mine and its and len(mine) == len(its) and mine != its:
    number = next(
      i for i, (a, b) in enumerate(zip(mine, its, strict=True)) if a != b
    )
    yield (
      f"{source}: a class starts as that of its number, and {number} is "
      f"{its[number]!r} there, {mine[number]!r} here"
    )


def _listed(names: Sequence[str]) -> str:
  return ", ".join(names[:_LISTED]) + ", ..." * (len(names) > _LISTED)


def size(params: PyTree) -> int:
  """Return how many numbers parameters have."""
  return sum(x.size for x in jax.tree.leaves(params))


def shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
  """Return the shapes of arrays by path."""
  return {
    jax.tree_util.keystr(path): leaf.shape
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
  }
