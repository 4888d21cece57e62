"""Parameters of frozen networks from the tensors of published PyTorch files.

Modules are named as the published tensors are, so that a name in a file follows
from a place in the tree of parameters. A kernel of a convolution is [out, in,
height, width] there, one of a linear map [out, in].
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxflow.errors import UsageError
from jaxflow.models.network import abstract_module
from jaxflow.models.preprocessing import PRECISION
from jaxflow.pretrained import torch_files
from jaxflow.types import Array, PyTree

# Axes of a tensor of ours, among those of PyTorch's.
_AXES = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}


class FrozenNorm(nnx.Module):
  """Batch norm whose statistics are those of the training, for good.

  y = (x - running_mean) / sqrt(running_var + eps) * weight + bias.
  """

  def __init__(self, width: int, eps: float):
    self.eps = eps
    self.weight = nnx.Param(jax.numpy.ones(width))
    self.bias = nnx.Param(jax.numpy.zeros(width))
    self.running_mean = nnx.Param(jax.numpy.zeros(width))
    self.running_var = nnx.Param(jax.numpy.ones(width))

  def __call__(self, x: Array) -> Array:
    """Return [B, H, W, width]."""
    scale = self.weight[...] * jax.lax.rsqrt(self.running_var[...] + self.eps)
    offset = self.bias[...] - self.running_mean[...] * scale
    # Rank promotion is refused in the tests.
    return x * scale.reshape(1, 1, 1, -1) + offset.reshape(1, 1, 1, -1)


def convolution(
  before: int,
  width: int,
  kernel: tuple[int, int],
  *,
  stride: int = 1,
  padding: str = "SAME",
  groups: int = 1,
  rngs: nnx.Rngs,
) -> nnx.Conv:
  """Make a convolution without bias, in full float32 on every machine."""
  return nnx.Conv(
    before,
    width,
    kernel,
    strides=stride,
    padding=padding,
    feature_group_count=groups,
    use_bias=False,
    precision=PRECISION,
    rngs=rngs,
  )


def module_with(make_module: Callable[[nnx.Rngs], Any], params: PyTree) -> Any:
  """Return the module that has given parameters.

  Args:
    make_module: Builds the module; a function of a module, not a lambda.
    params: Its parameters.
  """
  graph, _ = _structure(make_module)
  return nnx.merge(graph, params, copy=True)


# Of a hundred layers it takes a second.
_structure = functools.cache(abstract_module)


def read_parameters(
  file: str,
  make_module: Callable[[nnx.Rngs], Any],
  *,
  name_of: Callable[[list[str]], str] = ".".join,
  sha256: str,
  source: str,
) -> PyTree:
  """Read the parameters of a module from a published file.

  Args:
    file: Path of a file of `torch.save`, or an .npz file with its names.
    make_module: Builds the module.
    name_of: From the place of a parameter, ["fc", "weight"] for instance, to
      the name of its tensor.
    sha256: Hash of the file.
    source: Which file is meant, for messages.

  Returns:
    float32 NumPy arrays in a nested dict.

  Raises:
    UsageError: If the file is missing, is not the expected one, is damaged, or
      lacks a tensor.
  """
  _, shapes = _structure(make_module)
  leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)
  names = [name_of(_place([key.key for key in path])) for path, _ in leaves]
  tensors = torch_files.read(file, names, sha256=sha256, source=source)
  return jax.tree_util.tree_unflatten(
    tree,
    [
      from_torch_layout(name, tensors[name], leaf.shape, f"file={file}")
      for name, (_, leaf) in zip(names, leaves, strict=True)
    ],
  )


def _place(place: list[str]) -> list[str]:
  """Rename kernels to PyTorch's weights."""
  return ["weight" if part == "kernel" else part for part in place]


def from_torch_layout(
  name: str, tensor: np.ndarray, shape: tuple[int, ...], where: str
) -> np.ndarray:
  """Return a tensor of PyTorch's layout in ours, float32.

  Args:
    name: Name of the tensor, for messages.
    tensor: The tensor; a linear map may be a convolution of 1 x 1.
    shape: Shape of the result.
    where: Start of messages.

  Raises:
    UsageError: If the tensor has another shape.
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
