"""Connection of the processes of a job.

Every process of a job runs the same command. Whether there is a job is read
from the environment of its launcher: Slurm, Open MPI, a pod of TPUs, or

  JAX_COORDINATOR_ADDRESS=host:port JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=0

on any machines.
"""

import importlib.util
import os
import pathlib
import sys
import time
from collections.abc import Mapping

import jax

from jaxflow.errors import RunError, UsageError
from jaxflow.parallel import processes

MODES = ("auto", "on", "off")
_EXPLICIT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# Variables of launchers that hold the number of processes.
_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
_TPU_DEVICES = ("/dev/accel0", "/dev/vfio/0")


def join(mode: str = "auto", *, preemptible: bool = True) -> None:
  """Join the other processes of a job, if there is one.

  Call it before anything else of JAX, which is then set up for good. The mode
  "auto" looks at the environment, "on" joins in any case, "off" never. With
  `preemptible`, SIGTERM does not end the process, but waits to be asked for, by
  `interruption`.

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
  """Return whether a launcher's variables speak of several processes."""
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
  if processes.count() == 1:
    return
  sys.stdout.flush()
  sys.stderr.flush()
  if processes.is_main():
    # The others are connected to this one: where all fail, it leaves last.
    time.sleep(2)
  os._exit(code)
