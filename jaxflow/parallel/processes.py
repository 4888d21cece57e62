"""Agreement of the processes of a job, of which one writes.

All call these functions, in the same order.
"""

import contextlib
import hashlib
import io
import itertools
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxflow.errors import RunError, UsageError
from jaxflow.types import PyTree

_T = TypeVar("_T")

# How many bytes of a message reach the other processes.
_MESSAGE_BYTES = 2048
# JAX wants to be asked with a growing number.
_questions = itertools.count()


def count() -> int:
  """Return the number of processes."""
  return jax.process_count() if jax.distributed.is_initialized() else 1


def is_main() -> bool:
  """Return whether this is the process that writes."""
  return not jax.distributed.is_initialized() or jax.process_index() == 0


def together(action: Callable[[], _T]) -> _T:
  """Call a function on every process; if it fails on one, fail on all.

  The function must not wait for other processes. UsageError and RunError are
  raised wherever they occur; other errors of other processes become a RunError.
  """
  if count() == 1:
    return action()
  result, error = None, None
  try:
    result = action()
  except Exception as e:  # Whatever it is, the others must hear of it.
    error = e
  texts = _gather_text(_text(error))
  if error is not None:
    raise error
  for number, text in enumerate(texts):
    if text:
      _raise(text, f"process {number}: ")
  # It is there: an error here, or elsewhere, has been raised.
  return result  # pyright: ignore[reportReturnType]


def once(action: Callable[[], None]) -> None:
  """Let the main process do something; the others wait, and fail if it does."""
  together(lambda: action() if is_main() else None)


def check_same(value: str, what: str) -> None:
  """Raise UsageError if the processes do not have the same text.

  The message names the text: `what`.
  """
  if count() == 1:
    return
  digests = _gather_text(hashlib.sha256(value.encode()).hexdigest())
  for number, digest in enumerate(digests):
    if digest != digests[0]:
      raise UsageError(
        f"{what} of process {number} is not that of process 0: run the same "
        "command, from the same files, in all processes"
      )


def everywhere(answer: bool) -> bool:
  """Return whether all processes say yes."""
  if count() == 1:
    return answer
  answers = multihost_utils.process_allgather(np.array([answer]))
  return bool(np.asarray(answers).all())


def of_main(value: Any) -> Any:
  """Return the main process's value, a decision that all must share.

  It can be anything that JSON can hold.
  """
  if count() == 1:
    return value
  data = np.frombuffer(json.dumps(value).encode(), np.uint8)
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
  sent = multihost_utils.broadcast_one_to_all(np.resize(data, size))
  return json.loads(bytes(np.asarray(sent, np.uint8)))


def each(arrays: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
  """Yield the arrays of every process, one process after the other.

  They may differ in name and shape; nothing is rounded, and memory holds those
  of one process at a time. All processes must go through to the end.
  """
  if count() == 1:
    yield dict(arrays)
    return
  buffer = io.BytesIO()
  # No array is called allow_pickle, the one other keyword.
  np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]
  mine = np.frombuffer(buffer.getvalue(), np.uint8)
  sizes = multihost_utils.process_allgather(np.array([len(mine)], np.int32))
  for number, size in enumerate(np.ravel(np.asarray(sizes))):
    source = jax.process_index() == number
    data = multihost_utils.broadcast_one_to_all(
      mine if source else np.zeros(size, np.uint8), is_source=source
    )
    with np.load(io.BytesIO(bytes(np.asarray(data, np.uint8)))) as file:
      yield {name: file[name] for name in file.files}


def of_main_arrays(tree: PyTree) -> PyTree:
  """Return the main process's arrays, of equal shapes on all, in NumPy.

  Every process must be able to read its own.
  """
  arrays = jax.tree.map(np.asarray, tree)
  if count() == 1:
    return arrays
  sent = multihost_utils.broadcast_one_to_all(arrays)
  return jax.tree.map(np.asarray, sent)


def gather(tree: PyTree) -> PyTree:
  """Return arrays that are spread over processes as whole NumPy arrays."""

  def whole(x):
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
      return np.asarray(multihost_utils.process_allgather(x, tiled=True))
    return np.asarray(x)

  return jax.tree.map(whole, tree)


@contextlib.contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
  """Turn SIGINT and SIGTERM into a question; a second SIGINT raises as usual.

  In a job, a signal to any process, or the notice of a preemption, is answered
  with True by all processes at the same time: all must ask equally often.
  """
  alone = count() == 1
  seen: list[int] = []
  stopping: list[bool] = []

  def note(number, frame):
    del frame
    seen.append(number)
    signal.signal(signal.SIGINT, previous[signal.SIGINT])
    if not alone:
      # JAX listens to SIGTERM, and tells the other processes.
      os.kill(os.getpid(), signal.SIGTERM)

  wanted = (signal.SIGINT, signal.SIGTERM) if alone else (signal.SIGINT,)
  if threading.current_thread() is not threading.main_thread():
    wanted = ()  # Python lets the main thread alone handle signals.
  previous = {number: signal.signal(number, note) for number in wanted}

  def interrupted():
    if alone:
      return bool(seen)
    # The answer is yes once only, and not all who ask can stop at once.
    if not stopping and multihost_utils.reached_preemption_sync_point(
      next(_questions)
    ):
      stopping.append(True)
    return bool(stopping)

  try:
    yield interrupted
  finally:
    for number, handler in previous.items():
      # None stands for a handler that was not set from Python.
      signal.signal(number, handler or signal.SIG_DFL)


def _text(error: Exception | None) -> str:
  if error is None:
    return ""
  own = isinstance(error, UsageError | RunError)
  name = type(error).__name__
  return f"{name if own else 'RunError'}|{'' if own else name + ': '}{error}"


def _raise(text: str, prefix: str) -> None:
  kind, _, message = text.partition("|")
  raise (UsageError if kind == "UsageError" else RunError)(prefix + message)


def _gather_text(text: str) -> list[str]:
  """Return the text of every process, in order, cut to a fixed length."""
  data = text.encode()[:_MESSAGE_BYTES]
  array = np.zeros(_MESSAGE_BYTES, np.uint8)
  array[: len(data)] = np.frombuffer(data, np.uint8)
  rows = np.asarray(multihost_utils.process_allgather(array))
  return [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in rows]
