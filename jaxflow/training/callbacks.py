"""Callbacks: objects that are notified while a run trains."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from jaxflow.errors import RunError, UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
  """The start of training, or its resumption, as callbacks see it.

  Attributes:
    step: The step at which it starts.
    steps: The step at which it will end.
    batch_size: Samples a step.
    workdir: The run's folder, or None for a run in memory.
    config: The run's config, a nested dict of plain values.
  """

  step: int
  steps: int
  batch_size: int
  workdir: pathlib.Path | None = None
  config: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Callbacks:
  """Notify several objects; each has the methods it wants.

  They are told in the order in which they are given. One that raises is told
  nothing more but `close()`.

  Args:
    callbacks: Objects with any of `on_start(start)`, `on_log(step, scalars)`,
      `on_checkpoint(step)`, `on_samples(step, samples)` and `close()`.
    on_error: Called once one of them has raised; the error is raised by
      `check` then. Default: it is raised at once, but for that of `close`.

  Attributes:
    scalars: Those that were reported last.

  Example:
    >>> class Printer:
    ...   def on_log(self, step, scalars):
    ...     print(step, scalars["loss"])
    >>> Callbacks([Printer()]).on_log(10, {"loss": 0.5})
    10 0.5
  """

  def __init__(
    self,
    callbacks: Iterable[Any] = (),
    *,
    on_error: Callable[[], None] | None = None,
  ):
    self._callbacks = tuple(callbacks)
    self._told = list(self._callbacks)
    self._on_error = on_error
    self._error: Exception | None = None
    self.scalars: Mapping[str, float] = {}

  def on_start(self, start: Start) -> None:
    """Report that training starts or resumes."""
    self._call("on_start", start)

  def on_log(self, step: int, scalars: Mapping[str, float]) -> None:
    """Report the scalars of a step."""
    self.scalars = scalars
    self._call("on_log", step, scalars)

  def on_checkpoint(self, step: int) -> None:
    """Report that the checkpoint of a step is being saved."""
    self._call("on_checkpoint", step)

  def on_samples(self, step: int, samples: np.ndarray) -> None:
    """Report samples `[N, ...]`, images in [-1, 1], drawn at a step."""
    self._call("on_samples", step, samples)

  def check(self) -> None:
    """Raise RunError if a callback has raised."""
    if self._error is not None:
      raise RunError(str(self._error)) from self._error.__cause__

  def hears(self, name: str) -> bool:
    """Return whether a callback has a method."""
    return any(hasattr(callback, name) for callback in self._callbacks)

  def close(self) -> None:
    """Tell all that training has ended, those that raised as well.

    If one raises, the others are closed, and `check` raises.
    """
    self._on_error = lambda: None
    self._told = [*reversed(self._callbacks)]
    self._call("close")

  def _call(self, name: str, *arguments: Any) -> None:
    for callback in tuple(self._told):
      method = getattr(callback, name, None)
      if method is None:
        continue
      try:
        method(*arguments)
      except Exception as error:  # Whatever it is, training is saved first.
        self._told.remove(callback)
        self._fail(f"{type(callback).__name__}.{name}", error)

  def _fail(self, method: str, error: Exception) -> None:
    expected = isinstance(error, UsageError | RunError)
    kind = "" if expected else f"{type(error).__name__}: "
    failure = RunError(f"callback {method} failed: {kind}{error}")
    if self._on_error is None:
      raise failure from error
    if self._error is None:
      failure.__cause__ = error
      self._error = failure
      self._on_error()
