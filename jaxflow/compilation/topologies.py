"""Devices to compile for: absent TPU pods, and devices of the host."""

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
from typing import Any, Self

import jax
from jax.experimental import topologies

from jaxflow.compilation.chips import CHIPS, Chip
from jaxflow.errors import UsageError

# No chip is used, so the TPU runtime need not look for its hosts, and other
# processes may compile at the same time.
_ENVIRONMENT = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_ACCELERATOR_TYPE": "v5e-4",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
_FORMS = "v5p:4x4x4, v5e:16x16, v4:4x4x8, v6e:16x16 or host:8, for instance"


@dataclasses.dataclass(frozen=True)
class Topology:
  """Devices by name and arrangement.

  Attributes:
    name: What the user wrote.
    chip: The chip, or None for devices of the host.
    shape: Devices along each axis.
  """

  name: str
  chip: Chip | None
  shape: tuple[int, ...]

  @classmethod
  def parse(cls, name: str) -> Self:
    """Read `v5p:4x4x4` or `host:8`; raise UsageError if it is neither.

    Whether the compiler supports it is checked by `devices`.
    """
    kind, _, text = name.partition(":")
    if kind not in CHIPS and kind != "host":
      known = ", ".join([*CHIPS, "host"])
      raise UsageError(
        f"topology={name}: {kind!r} is none of {known}; give {_FORMS}"
      )
    chip = CHIPS.get(kind)
    dimensions = chip.dimensions if chip else 1
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text) or (
      text.count("x") + 1 != dimensions
    ):
      what = {1: "a number of devices", 2: "AxB chips", 3: "AxBxC chips"}
      raise UsageError(
        f"topology={name}: give {what[dimensions]} behind {kind}: {_FORMS}"
      )
    return cls(name, chip, tuple(map(int, text.split("x"))))

  @property
  def size(self) -> int:
    """The number of chips, or of host devices."""
    return math.prod(self.shape)

  def prepare(self) -> None:
    """Set up the process to compile for the devices, before JAX starts.

    This sets environment variables and JAX's platforms.
    """
    if self.chip is not None:
      if importlib.util.find_spec("libtpu") is None:
        raise UsageError(
          f"topology={self.name}: the TPU compiler is not installed; pip "
          "install 'jaxflow-generative[tpu]', or give host:8 for instance"
        )
      for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Resolving a config computes on the host.
    os.environ["JAX_PLATFORMS"] = "cpu"
    jax.config.update("jax_platforms", "cpu")
    if self.chip is not None:
      return
    forced = "xla_force_host_platform_device_count"
    if forced not in os.environ.get("XLA_FLAGS", ""):
      # JAX may have started already, perhaps with enough of them.
      with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", self.size)
    count = len(jax.devices("cpu"))
    if count < self.size:
      raise UsageError(
        f"topology={self.name}: JAX has {count} host devices already; leave "
        f"{forced} out of XLA_FLAGS"
      )

  def devices(self) -> list[Any]:
    """Return the devices in mesh order; a pod's can compile, but not run."""
    if self.chip is None:
      return jax.devices("cpu")[: self.size]
    try:
      description = topologies.get_topology_desc(
        topology_name=self.name,
        platform="tpu",
        chip_config_name=self.chip.core_config,
      )
    except jax.errors.JaxRuntimeError as error:
      reason = str(error).split("\n")[0]
      raise UsageError(
        f"topology={self.name}: the TPU compiler refuses it ({reason}); give "
        f"{_FORMS}"
      ) from error
    return list(description.devices)
