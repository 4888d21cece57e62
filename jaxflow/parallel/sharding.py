"""Layout of arrays on devices: a mesh of three axes, rules for parameters.

Batches are split over "data" and "fsdp". Parameters are split over "fsdp", and
those of transformer blocks over "tensor" too; averages, optimizer states and
frozen networks lie as the parameters they belong to, whose paths theirs end in.
Arrays that no axis divides are replicated.

References:
  Shoeybi et al. 2019 (arXiv:1909.08053), section 3: the tensor axis.
"""

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxflow.errors import UsageError
from jaxflow.types import PyTree

_F = TypeVar("_F", bound=Callable[..., Any])

AXES = ("data", "fsdp", "tensor")
# The axes over which the rows of a batch are split.
ROWS = ("data", "fsdp")

# The first pattern found in a parameter's path says which axis splits each of
# its last dimensions. The first linear map of a pair is split by its outputs,
# the second by its inputs: heads and hidden units stay on their device, and one
# sum a pair is all that moves.
# What an adapter multiplies is split as the kernel that it changes.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
  (r"blocks/.*(qkv|expand|swish)/kernel(/change)?$", ("fsdp", "tensor")),
  (r"blocks/.*(qkv|expand|swish)/kernel/in$", ("fsdp", None)),
  (r"blocks/.*(qkv|expand|swish)/kernel/out$", (None, "tensor")),
  (r"blocks/.*(qkv|expand|swish)/bias(/change)?$", ("tensor",)),
  (
    r"blocks/.*(attention/output|contract)/kernel(/change)?$",
    ("tensor", "fsdp"),
  ),
  (r"blocks/.*(attention/output|contract)/kernel/in$", ("tensor", None)),
  (r"blocks/.*(attention/output|contract)/kernel/out$", (None, "fsdp")),
)

# Others are split over fsdp along their largest dimension that it divides,
# but not along the layers of a scanned stack: a step of the scan would have to
# gather all layers for one.
_STACKED = re.compile("stacked/")

# Below this a shard saves less memory than its gathers cost time.
MIN_SHARDED_SIZE = 2**12


def make_mesh(
  *,
  data: int = -1,
  fsdp: int = 1,
  tensor: int = 1,
  devices: Sequence[Any] | None = None,
) -> Mesh:
  """Arrange devices as `(data, fsdp, tensor)`.

  Args:
    data: Devices along the data axis; -1 takes all that it can.
    fsdp: Devices over which each parameter is split.
    tensor: Devices over which heads and hidden units of a block are split.
    devices: The devices; default: those of all processes.

  Devices may be left out where one process holds all.

  Raises:
    UsageError: If there are fewer devices than the axes ask for.
  """
  devices = jax.devices() if devices is None else devices
  count = len(devices)
  shape = data, fsdp, tensor
  if data == -1 and fsdp > 0 and tensor > 0:
    shape = max(count // (fsdp * tensor), 1), fsdp, tensor
  used = math.prod(shape)
  whole = len({device.process_index for device in devices}) > 1
  if min(shape) < 1 or used > count or (whole and used < count):
    raise UsageError(
      f"mesh.data={data}, mesh.fsdp={fsdp}, mesh.tensor={tensor}: give "
      "positive axes, or mesh.data=-1 for what is left; their product is "
      f"{'' if whole else 'at most '}{count}, the number of devices"
    )
  # An axis may be a part of one axis of a torus, 16 of 8 x 8 x 8 chips.
  arranged = mesh_utils.create_device_mesh(
    shape, devices[:used], allow_split_physical_axes=True
  )
  return Mesh(arranged, AXES, axis_types=(AxisType.Auto,) * 3)


def with_mesh(mesh: Mesh, function: _F) -> _F:
  """Return a function that is traced with a mesh in force.

  Networks then keep the rows of their activations where the batch has them.
  """

  @functools.wraps(function)
  def traced(*args: Any, **kwargs: Any) -> Any:
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*args, **kwargs)

  return cast(_F, traced)


def fitting_mesh(section: Mapping[str, int]) -> Mesh:
  """Arrange all devices to sample from a run that had perhaps others.

  Of the axes with which it was trained, "fsdp" and "tensor" are kept where they
  divide the devices.
  """
  fsdp, tensor = section["fsdp"], section["tensor"]
  if jax.device_count() % (fsdp * tensor):
    fsdp = tensor = 1
  return make_mesh(fsdp=fsdp, tensor=tensor)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Shard `[steps, micro-batches, rows, ...]` along the rows."""
  return NamedSharding(mesh, PartitionSpec(None, None, ROWS))


def row_sharding(mesh: Mesh) -> NamedSharding:
  """Shard `[rows, ...]` along the rows."""
  return NamedSharding(mesh, PartitionSpec(ROWS))


def replicated(mesh: Mesh) -> NamedSharding:
  """Keep a copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def divides_parameters(mesh: Mesh) -> bool:
  """Return whether an axis of the mesh splits parameters."""
  return mesh.shape["fsdp"] * mesh.shape["tensor"] > 1


def row_shards(mesh: Mesh) -> int:
  """Count the parts into which the rows of a batch are split."""
  return math.prod(mesh.shape[axis] for axis in ROWS)


def local_rows(mesh: Mesh, rows: int) -> np.ndarray:
  """Return which of all rows the devices of this process hold, ascending `[n]`.

  On a pod they need not be neighbours: a host's devices are a part of a torus,
  along which the mesh winds.
  """
  held = row_sharding(mesh).addressable_devices_indices_map((rows,))
  parts = [np.arange(rows)[index] for index in held.values() if index]
  return np.unique(np.concatenate(parts))


def parameter_shardings(tree: PyTree, mesh: Mesh) -> PyTree:
  """Return a sharding for every leaf of a tree of arrays or shapes.

  The tree holds parameters, or trees of such (EMA, optimizer state).
  """

  def sharding(path, leaf):
    axes, _ = _split(mesh, path, leaf)
    return NamedSharding(mesh, PartitionSpec(*axes))

  return jax.tree.map_with_path(sharding, tree)


def undivided(params: PyTree, mesh: Mesh) -> list[str]:
  """Describe the parameters that an axis of the mesh should split and cannot.

  Each has a line, `patch/kernel [7, 101]: fsdp`.
  """
  lines = []
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    _, refused = _split(mesh, path, leaf)
    if refused:
      lines.append(f"{_name(path)} {list(leaf.shape)}: {', '.join(refused)}")
  return lines


def _split(
  mesh: Mesh, path: tuple, leaf: jax.Array
) -> tuple[list[str | None], list[str]]:
  """Return the axis of each dimension, and those that do not divide theirs."""
  if leaf.size < MIN_SHARDED_SIZE:
    return [], []
  wanted = _wanted(_name(path), leaf.shape, mesh.shape["fsdp"])
  sizes = dict(zip(range(-leaf.ndim, 0), leaf.shape, strict=True))
  fits = {d: sizes[d] % mesh.shape[axis] == 0 for d, axis in wanted.items()}
  axes = [wanted[d] if fits.get(d) else None for d in sizes]
  return axes, [axis for d, axis in wanted.items() if not fits[d]]


def _wanted(name: str, shape: tuple[int, ...], fsdp: int) -> dict[int, str]:
  """Return the axis that should split a dimension, counted from the last."""
  for pattern, axes in RULES:
    if re.search(pattern, name):
      dims = range(-len(axes), 0)
      return {d: axis for d, axis in zip(dims, axes, strict=True) if axis}
  dims = range(-len(shape) + bool(_STACKED.search(name)), 0)
  fitting = [d for d in dims if shape[d] % fsdp == 0] or dims
  return {max(fitting, key=lambda d: shape[d]): "fsdp"}


def _name(path: tuple) -> str:
  return jax.tree_util.keystr(path, simple=True, separator="/")
