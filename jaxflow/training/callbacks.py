"""Callbacks: objects that are told what happens while a run trains."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

__all__ = ["Callbacks"]


class Callbacks:
  """Tell several objects what happens; each has the methods it wants.

  Args:
    callbacks: Objects with any of `on_log(step, scalars)`,
      `on_checkpoint(step)`, `on_samples(step, samples)` and `close()`.

  Example:
    >>> class Printer:
    ...   def on_log(self, step, scalars):
    ...     print(step, scalars["loss"])
    >>> Callbacks([Printer()]).on_log(10, {"loss": 0.5})
    10 0.5
  """

  def __init__(self, callbacks: Iterable[Any] = ()):
    self._callbacks = tuple(callbacks)

  def on_log(self, step: int, scalars: Mapping[str, float]) -> None:
    """Report the scalars of a step."""
    self._call("on_log", step, scalars)

  def on_checkpoint(self, step: int) -> None:
    """Report that the checkpoint of a step is being saved."""
    self._call("on_checkpoint", step)

  def on_samples(self, step: int, samples: np.ndarray) -> None:
    """Report samples `[N, ...]`, images in [-1, 1], drawn at a step."""
    self._call("on_samples", step, samples)

  def close(self) -> None:
    """Tell all that training has ended."""
    self._call("close")

  def _call(self, name: str, *arguments: Any) -> None:
    for callback in self._callbacks:
      method = getattr(callback, name, None)
      if method is not None:
        method(*arguments)
