"""Where arrays live: a mesh of data and fsdp axes, and a rule for parameters.

Batches are split over both axes. A parameter is split over the fsdp axis along
its largest dimension that the axis divides, or replicated where none does or
where it is small.
"""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxflow.errors import UsageError
from jaxflow.types import PyTree

# Below this a shard saves less memory than its gathers cost time.
MIN_SHARDED_SIZE = 2**12


def make_mesh(*, data: int = -1, fsdp: int = 1) -> Mesh:
  """Arrange all devices as `(data, fsdp)`.

  Args:
    data: Devices along the data axis; -1 takes all that are left.
    fsdp: Devices over which each parameter is split.

  Returns:
    The mesh.

  Raises:
    UsageError: If the axes do not use all devices.

  Example:
    >>> make_mesh().axis_names
    ('data', 'fsdp')
  """
  count = jax.device_count()
  if data == -1 and fsdp > 0:
    data = count // fsdp
  if data < 1 or fsdp < 1 or data * fsdp != count:
    raise UsageError(
      f"mesh.data={data} times mesh.fsdp={fsdp} is not the number of devices, "
      f"{count}: choose divisors of {count}, or mesh.data=-1"
    )
  return jax.make_mesh((data, fsdp), ("data", "fsdp"), (AxisType.Auto,) * 2)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Shard `[steps, micro-batches, rows, ...]` along the rows.

  Example:
    >>> tuple(batch_sharding(make_mesh()).spec)
    (None, None, ('data', 'fsdp'))
  """
  return NamedSharding(mesh, PartitionSpec(None, None, mesh.axis_names))


def parameter_shardings(tree: PyTree, mesh: Mesh) -> PyTree:
  """Return a sharding for every leaf of a tree of arrays or shapes.

  Args:
    tree: Parameters, or anything shaped like them (EMA, optimizer state).
    mesh: A mesh with an axis "fsdp".

  Returns:
    A tree of `NamedSharding` like `tree`.

  Example:
    >>> import jax.numpy as jnp
    >>> shardings = parameter_shardings({"w": jnp.zeros(3)}, make_mesh())
    >>> shardings["w"].is_fully_replicated
    True
  """
  size = mesh.shape["fsdp"]

  def rule(leaf):
    dims = [d for d, n in enumerate(leaf.shape) if n % size == 0]
    if size == 1 or leaf.size < MIN_SHARDED_SIZE or not dims:
      return NamedSharding(mesh, PartitionSpec())
    largest = max(dims, key=lambda d: leaf.shape[d])
    return NamedSharding(mesh, PartitionSpec(*(None,) * largest, "fsdp"))

  return jax.tree.map(rule, tree)
