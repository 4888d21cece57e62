"""`jaxflow.register`: names of a program's own objects, for configs."""

from collections.abc import Mapping
from typing import Any

from jaxflow import metrics, plugins
from jaxflow.config import registry
from jaxflow.data.loading import DATASETS
from jaxflow.errors import UsageError, unknown
from jaxflow.methods import METHODS, Method
from jaxflow.training.optimizers import OPTIMIZERS, SCHEDULES

# What has each name already, by kind.
_TAKEN: Mapping[str, Any] = {
  "method": METHODS,
  "data": DATASETS,
  "metric": (*metrics.METRICS, *metrics.OF_VELOCITIES),
  "optimizer": OPTIMIZERS,
  "schedule": SCHEDULES,
  **registry.KINDS,
}
# Kinds whose objects are rows of a table.
_ROWS = {"method": Method, "metric": metrics.Metric}


def register(kind: str, name: str, value: Any) -> None:
  """Give an object a name that configs can use where they take one of a kind.

  A run keeps the name alone. So a program that opens the run registers it
  again; on the command line, `--plugins` names a package that does so.

  Args:
    kind: "method", "model", "data", "metric", "optimizer", "schedule", or
      another key of `config.registry.KINDS`, "weight" for instance.
    name: A name that is free, without ':'.
    value: The object; docs/plugins.md says what each kind takes.

  Raises:
    UsageError: If an argument is wrong, or the name is taken.

  Example:
    >>> from jaxflow.times import Constant
    >>> register("law", "always_noise", lambda: Constant(t=1.0))
  """
  if kind not in _TAKEN:
    raise unknown("kind", kind, _TAKEN)
  if not name or not set(name).isdisjoint(":,/ "):
    raise UsageError(
      f"name={name!r}: give a name without ':', ',', '/' and blanks"
    )
  if name in _TAKEN[kind]:
    raise UsageError(
      f"name={name!r}: jaxflow has a {kind} of that name: choose another name"
    )
  row = _ROWS.get(kind, object)
  if not isinstance(value, row):
    raise UsageError(
      f"value of type {type(value).__name__}: a {kind} is a "
      f"{row.__module__}.{row.__name__}"
    )
  plugins.add(kind, name, value)
