"""Parameters of frozen networks from the tensors of published PyTorch files.

Modules are named as the published tensors are, so that a name in a file follows
from a place in the tree of parameters. A kernel of a convolution is [out, in,
height, width] there, one of a linear map [out, in].
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxflow.errors import UsageError
from jaxflow.models.network import abstract_module
from jaxflow.models.preprocessing import PRECISION
from jaxflow.pretrained import torch_files
from jaxflow.types import Array, PyTree

# PyTorch's names of ours.
_WEIGHTS = {"kernel": "weight", "scale": "weight"}
# Axes of a tensor of ours, among those of PyTorch's.
_AXES = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}


class FrozenNorm(nnx.Module):
  """Batch norm whose statistics are those of the training, for good.

  y = (x - running_mean) / sqrt(running_var + 1e-3) * weight + bias.
  """

  def __init__(self, width: int):
    shape = width, jnp.float32
    self.weight: nnx.Param[Any] = nnx.Param(jnp.ones(*shape))
    self.bias: nnx.Param[Any] = nnx.Param(jnp.zeros(*shape))
    self.running_mean: nnx.Param[Any] = nnx.Param(jnp.zeros(*shape))
    self.running_var: nnx.Param[Any] = nnx.Param(jnp.ones(*shape))

  def __call__(self, x: Array) -> Array:
    """Return [B, H, W, width]."""
    scale = self.weight[...] * jax.lax.rsqrt(self.running_var[...] + 1e-3)
    offset = self.bias[...] - self.running_mean[...] * scale
    # Rank promotion is refused in the tests.
    return x * scale.reshape(1, 1, 1, -1) + offset.reshape(1, 1, 1, -1)


# In full float32 on every machine.
convolution = functools.partial(nnx.Conv, use_bias=False, precision=PRECISION)

# Of a hundred layers it takes a second.
_structure = functools.cache(abstract_module)


def module_with(make_module: Callable[[nnx.Rngs], Any], params: PyTree) -> Any:
  """Return the module that has given parameters.

  Its maker is a function of a module, not a lambda: structures are kept.
  """
  graph, _ = _structure(make_module)
  return nnx.merge(graph, params, copy=True)


def read_parameters(
  file: str,
  make_module: Callable[[nnx.Rngs], Any],
  *,
  name_of: Callable[[list[str]], str] = ".".join,
  sha256: str,
  source: str,
) -> PyTree:
  """Read the parameters of a module from a published file, float32 on the host.

  A file is one of `torch.save`, or an .npz file with its names. Messages say by
  `source` which file is meant.
  """
  _, shapes = _structure(make_module)
  names = tensor_names(shapes, name_of)
  tensors = torch_files.read(
    file, jax.tree.leaves(names), sha256=sha256, source=source
  )
  return from_tensors(tensors, names, shapes, f"file={file}")


def tensor_names(shapes: PyTree, name_of: Callable[[list[str]], str]) -> PyTree:
  """Return the names of the tensors that hold parameters.

  `name_of` makes a name of a place, ["fc", "weight"] for instance.
  """

  def name(path: Any, _: Any) -> str:
    *modules, last = (str(key.key) for key in path)
    return name_of([*modules, _WEIGHTS.get(last, last)])

  return jax.tree_util.tree_map_with_path(name, shapes)


def dotted(place: list[str]) -> str:
  """Return the name of a place where `_0` stands for `.0`."""
  return re.sub(r"_(\d+)\.", r".\1.", ".".join(place))


def from_tensors(
  tensors: Mapping[str, np.ndarray], names: PyTree, shapes: PyTree, where: str
) -> PyTree:
  """Return parameters of the tensors of these names; messages say `where`."""
  return jax.tree.map(
    lambda name, leaf: to_our_layout(name, tensors[name], leaf.shape, where),
    *(names, shapes),
  )


def to_our_layout(
  name: str, tensor: np.ndarray, shape: tuple[int, ...], where: str
) -> np.ndarray:
  """Return a tensor of PyTorch's layout as ours, of this shape, float32.

  A linear map may be a convolution of 1 x 1 there. Raises UsageError if the
  tensor has another shape.
  """
  axes = _AXES[len(shape)]
  expected = tuple(shape[axes.index(i)] for i in range(len(shape)))
  pixels = (1, 1) if len(shape) == 2 else ()
  if tensor.shape not in (expected, (*expected, *pixels)):
    raise UsageError(
      f"{where}: {name} has shape {tensor.shape}; the network needs {expected}"
    )
  tensor = tensor.reshape(expected).transpose(axes)
  return np.ascontiguousarray(tensor, np.float32)
