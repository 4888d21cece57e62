"""Open the data set of a plan, by split."""

import inspect
from typing import Any

from jaxflow import data
from jaxflow.data.loading import allowed_dir
from jaxflow.data.scaling import check_kind
from jaxflow.errors import UsageError
from jaxflow.plans import DataPlan

# Of a section of data, those that open one of its splits.
_FIELDS = set(inspect.signature(data.load).parameters) - {"name", "split"}


def load_data(
  plan: DataPlan, split: str, *, labels: bool = False
) -> data.Source:
  """Open a split of a data set."""
  conditional = plan.conditional or labels
  if plan.sources:
    source = _given(plan, split)
    return source if conditional else data.without_labels(source)
  own = {
    "data_dir": plan.data_dir or allowed_dir(plan.name, plan.stored_dir),
    "conditional": conditional,
    "splits": plan.split,
  }
  others = {k: getattr(plan, k) for k in _FIELDS if k not in own}
  return data.load(plan.name, split, **own, **others)


def _given(plan: DataPlan, split: str) -> data.Source:
  """Return a split of data that the caller passes, scaled if it is of arrays.

  The caller's arrays are samples already, unless `data.normalise` is given.
  """
  source = _part(plan, split)
  check_kind(plan.normalise)
  if not isinstance(source, data.Arrays):
    if plan.normalise is not None:
      raise UsageError(
        f"data.normalise={plan.normalise!r}: data of type "
        f"{type(source).__name__} are samples already; leave it out, or give "
        "arrays"
      )
    return source
  scaling, conditions = plan.scaling, plan.conditions
  if scaling is None and plan.normalise is not None:
    scaling = _part(plan, "train").scaling_of(plan.normalise)
  if conditions is None:
    conditions = (
      source.conditions_found() and _part(plan, "train").conditions_found()
    )
  return source.scaled(scaling, plan.ram_gib, conditions)


def _part(plan: DataPlan, split: str) -> Any:
  """Return a split of data that the caller passes, as it is."""
  if plan.test_share is not None and "train" in plan.sources:
    return data.held_out(plan.sources["train"], split, plan.test_share)
  if split not in plan.sources:
    raise data.NoSplitError(
      f"data.name={plan.name!r} has no {split} split, only "
      f"{', '.join(plan.sources)}: pass data={{'train': ..., 'test': ...}}"
    )
  return plan.sources[split]
