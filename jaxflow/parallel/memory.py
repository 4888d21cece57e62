"""What a state needs in memory, against what there is."""

import math
import os
import pathlib
from typing import Any

import jax

from jaxflow.errors import UsageError
from jaxflow.types import PyTree

# Limits of a container, in bytes or "max"; of both versions of control groups.
_CONTAINERS = (
  pathlib.Path("/sys/fs/cgroup/memory.max"),
  pathlib.Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def check(template: PyTree, what: str) -> None:
  """Raise UsageError if arrays cannot be in the memory of their devices.

  Args:
    template: Their shapes, with their shardings.
    what: What they are, for the message.
  """
  needed: dict[Any, int] = {}
  for leaf in jax.tree.leaves(template):
    size = math.prod(leaf.sharding.shard_shape(leaf.shape))
    for device in leaf.sharding.addressable_devices:
      item = leaf.dtype.itemsize
      needed[device] = needed.get(device, 0) + size * item
  # Devices of the host share its memory.
  host = sum(n for device, n in needed.items() if not _limit(device))
  for device, size in needed.items():
    limit = _limit(device)
    where, more = str(device), "devices with a larger mesh.fsdp"
    if not limit:
      size, limit = host, of_host()
      where, more = "this machine", "machines with a larger mesh.fsdp"
    if size > limit:
      raise UsageError(
        f"{what} would take {size / 2**30:,.1f} GiB of the "
        f"{limit / 2**30:,.1f} GiB of {where}: take a smaller model, or more "
        f"{more}"
      )


def _limit(device: Any) -> int:
  """Return the bytes that a device has, 0 if it does not tell."""
  return (device.memory_stats() or {}).get("bytes_limit", 0)


def of_host() -> int:
  """Return the bytes of memory of this machine, or of its container."""
  found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  for path in _CONTAINERS:
    if path.exists() and (text := path.read_text().strip()).isdecimal():
      found = min(found, int(text))
  return found
