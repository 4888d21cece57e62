"""The processes of a job: how they join, agree, and let one of them write.

Every process of a job runs the same command. Whether there is a job is read
from the environment of its launcher: Slurm, Open MPI, a pod of TPUs, or

  JAX_COORDINATOR_ADDRESS=host:port JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=0

on any machines. Without one, all functions here are those of a lone process.
"""

import contextlib
import hashlib
import importlib.util
import itertools
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxflow.errors import RunError, UsageError
from jaxflow.types import PyTree

T = TypeVar("T")

MODES = ("auto", "on", "off")
# How many bytes of a message reach the other processes.
_MESSAGE_BYTES = 2048
_EXPLICIT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# Variables of launchers that hold the number of processes.
_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
# JAX wants to be asked with a growing number.
_questions = itertools.count()
_TPU_DEVICES = ("/dev/accel0", "/dev/vfio/0")


def join(mode: str = "auto", *, preemptible: bool = True) -> None:
  """Join the other processes of a job, if there is one.

  To be called before anything else of JAX, which is then set up for good.

  Args:
    mode: "auto" looks at the environment, "on" joins in any case, "off" never.
    preemptible: Whether SIGTERM waits to be asked for, by `interruption`, and
      does not end the process.

  Raises:
    UsageError: If the mode is unknown or the environment is incomplete.
    RunError: If the other processes cannot be reached.
  """
  if mode not in MODES:
    raise UsageError(f"--distributed={mode}: give {', '.join(MODES)}")
  given = [name for name in _EXPLICIT if os.environ.get(name)]
  wanted = mode == "on" or (mode == "auto" and (given or in_job(os.environ)))
  if not wanted or jax.distributed.is_initialized():
    return
  if given and len(given) < len(_EXPLICIT):
    missing = [name for name in _EXPLICIT if name not in given]
    raise UsageError(
      f"{', '.join(given)} without {', '.join(missing)}: set all three, or none"
    )
  try:
    number, index = (
      int(os.environ[name]) if given else None for name in _EXPLICIT[1:]
    )
    jax.config.update("jax_enable_preemption_service", preemptible)
    jax.distributed.initialize(num_processes=number, process_id=index)
  except ValueError as error:
    raise UsageError(
      f"--distributed={mode}: {error} Set {', '.join(_EXPLICIT)}, or "
      "--distributed=off for one process"
    ) from error
  except RuntimeError as error:
    raise RunError(
      f"the other processes of the job cannot be reached: {error}; "
      "--distributed=off runs one process"
    ) from error


def in_job(environment: Mapping[str, str]) -> bool:
  """Return whether a launcher's variables speak of several processes.

  Example:
    >>> in_job({"SLURM_STEP_NUM_TASKS": "2"}), in_job({"SLURM_JOB_ID": "7"})
    (True, False)
  """
  counts = (environment.get(name, "1") for name in _COUNTS)
  if any(count.isdigit() and int(count) > 1 for count in counts):
    return True
  if "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
    return True
  if "MEGASCALE_COORDINATOR_ADDRESS" in environment:
    return True
  # A virtual machine of a pod has no variables; JAX asks its metadata.
  platforms = environment.get("JAX_PLATFORMS", "tpu")
  return (
    "tpu" in platforms
    and any(pathlib.Path(device).exists() for device in _TPU_DEVICES)
    and importlib.util.find_spec("libtpu") is not None
  )


def leave(code: int) -> None:
  """End a process of a job that has failed; a lone process just goes on.

  The others are not waited for: where they still compute, they learn from the
  silence of this one that there is no going on.
  """
  if count() == 1:
    return
  sys.stdout.flush()
  sys.stderr.flush()
  if is_main():
    # The others are connected to this one: where all fail, it leaves last.
    time.sleep(2)
  os._exit(code)


def count() -> int:
  """Return the number of processes.

  Example:
    >>> count()
    1
  """
  return jax.process_count() if jax.distributed.is_initialized() else 1


def is_main() -> bool:
  """Return whether this is the process that writes.

  Example:
    >>> is_main()
    True
  """
  return not jax.distributed.is_initialized() or jax.process_index() == 0


def wait(name: str) -> None:
  """Wait until all processes have come to the point of a name."""
  if count() > 1:
    multihost_utils.sync_global_devices(name)


def together(action: Callable[[], T]) -> T:
  """Do what may fail on one process alone; all fail where one does.

  Args:
    action: What to do; it must not wait for other processes.

  Returns:
    What this process's action returns.

  Raises:
    UsageError: If it was raised here or elsewhere.
    RunError: Likewise; other errors of other processes become one.

  Example:
    >>> together(lambda: 1)
    1
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
  return result  # pyright: ignore[reportReturnType]


def once(action: Callable[[], None]) -> None:
  """Let the main process do something; the others wait, and fail if it does.

  Raises:
    UsageError: If the action raises it.
    RunError: Likewise; other errors become one on other processes.

  Example:
    >>> once(lambda: print("done"))
    done
  """
  together(lambda: action() if is_main() else None)


def check_same(value: str, what: str) -> None:
  """Raise UsageError if the processes do not have the same text.

  Args:
    value: The text.
    what: What it is, for the message.

  Example:
    >>> check_same("a", "the config")
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
  """Return whether all processes say yes.

  Example:
    >>> everywhere(True)
    True
  """
  if count() == 1:
    return answer
  answers = multihost_utils.process_allgather(np.array([answer]))
  return bool(np.asarray(answers).all())


def of_main(number: float) -> float:
  """Return the main process's number.

  Example:
    >>> of_main(0.5)
    0.5
  """
  if count() == 1:
    return number
  return float(multihost_utils.broadcast_one_to_all(np.float32(number)))


def gather(tree: PyTree) -> PyTree:
  """Return arrays that are spread over processes as whole NumPy arrays.

  All processes must call it.

  Example:
    >>> gather({"x": jax.numpy.arange(3)})["x"].tolist()
    [0, 1, 2]
  """

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

  Example:
    >>> with interruption() as interrupted:
    ...   interrupted()
    False
  """
  alone = count() == 1
  seen: list[int] = []

  def note(number, frame):
    del frame
    seen.append(number)
    signal.signal(signal.SIGINT, previous[signal.SIGINT])
    if not alone:
      # JAX listens to SIGTERM, and tells the other processes.
      os.kill(os.getpid(), signal.SIGTERM)

  wanted = (signal.SIGINT, signal.SIGTERM) if alone else (signal.SIGINT,)
  previous = {number: signal.signal(number, note) for number in wanted}

  def interrupted():
    if alone:
      return bool(seen)
    return multihost_utils.reached_preemption_sync_point(next(_questions))

  try:
    yield interrupted
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)


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
