"""What a state needs in memory, against what there is."""

import math
import os
from typing import Any

import jax

from jaxflow.errors import UsageError
from jaxflow.types import PyTree


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
    size, limit = (size, limit) if limit else (host, _host_memory())
    if size > limit:
      raise UsageError(
        f"{what} would take {size / 2**30:,.1f} GiB of the "
        f"{limit / 2**30:,.1f} GiB of {device}: take a smaller model, or more "
        "devices with a larger mesh.fsdp"
      )


def _limit(device: Any) -> int:
  """Return the bytes that a device has, 0 if it does not tell."""
  return (device.memory_stats() or {}).get("bytes_limit", 0)


def _host_memory() -> int:
  """Return the bytes of memory of this machine."""
  return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
