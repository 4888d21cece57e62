"""An ONNX graph that is being built, node by node.

A value is an array that is known while the graph is built, or the output of a
node. Its shape may have 1 where the traced array has a larger size: ONNX
broadcasts as NumPy does, so nothing is expanded before it must be.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxflow.errors import UsageError

OPSET = 18
# ONNX Runtime reads this version of the file's own format from 1.17 on.
_IR_VERSION = 9
# Numbers from which a constant is a weight, which may be rounded.
_LARGE = 256


@dataclasses.dataclass(frozen=True)
class Output:
  """The output of a node: its name, its shape, its type."""

  name: str
  shape: tuple[Any, ...]
  dtype: np.dtype

  @property
  def ndim(self) -> int:
    """The number of axes."""
    return len(self.shape)


Value = Output | np.ndarray


class Graph:
  """Nodes and constants; the first input with a batch says its size.

  Attributes:
    names: Names of arrays that are weights, by their identity.
  """

  def __init__(self, dtype: str = "float32"):
    import onnx

    self._onnx = onnx
    self._dtype = dtype
    self._nodes: list[Any] = []
    self._constants: dict[str, np.ndarray] = {}
    self._known: dict[Any, str] = {}
    self._batch: tuple[Any, str] | None = None
    self._inputs: list[Any] = []
    self._count = 0
    self.names: dict[int, str] = {}

  def input(self, name: str, shape: tuple[Any, ...], dtype: Any) -> Output:
    """Add an input; a size that is no number is the batch's."""
    dims = [n if isinstance(n, int) else str(n) for n in shape]
    self._inputs.append(self._info(name, dims, dtype))
    if self._batch is None and shape and not isinstance(shape[0], int):
      self._batch = shape[0], name
    return Output(name, shape, np.dtype(dtype))

  def op(
    self,
    kind: str,
    *inputs: Value,
    shape: Sequence[Any],
    dtype: Any = None,
    channels: int | None = None,
    **attributes: Any,
  ) -> Output:
    """Add a node; its type is by default that of its first input.

    `channels` is the axis of output channels of a second input that is a
    weight.
    """
    axes = [channels if i == 1 else None for i in range(len(inputs))]
    names = [self.name(x, a) for x, a in zip(inputs, axes, strict=True)]
    (name,) = self._node(kind, names, **attributes)
    found = inputs[0].dtype if dtype is None else dtype
    return Output(name, tuple(shape), np.dtype(found))

  def full(self, value: Value, shape: tuple[Any, ...]) -> Value:
    """Return a value with all of its sizes."""
    if tuple(value.shape) == tuple(shape):
      return value
    if isinstance(value, np.ndarray) and all(isinstance(n, int) for n in shape):
      return np.broadcast_to(value, shape)
    name = self.name(value)
    (made,) = self._node("Expand", [name, self._sizes(shape)])
    return Output(made, tuple(shape), value.dtype)

  def reshape(self, value: Value, shape: tuple[Any, ...]) -> Value:
    """Return a value in another shape; it has all of its sizes."""
    if isinstance(value, np.ndarray):
      return value.reshape(shape)
    unknown = [i for i, n in enumerate(shape) if not isinstance(n, int)]
    sizes = [-1 if i in unknown[:1] else n for i, n in enumerate(shape)]
    if len(unknown) > 1:
      raise UsageError("onnx: a shape with two unknown sizes has no ONNX form")
    given = np.array(sizes, np.int64)
    return self.op("Reshape", value, given, shape=shape)

  def size(self, dim: Any) -> Output | np.ndarray:
    """Return a size as a vector of one number, int64."""
    if isinstance(dim, int):
      return np.array([dim], np.int64)
    assert self._batch is not None, "a size is unknown, so an input has it"
    batch, name = self._batch
    times = dim // batch
    if not isinstance(times, int) or times * batch != dim:
      raise UsageError(f"onnx: the size {dim} is no multiple of the batch's")
    if ("batch",) not in self._known:
      (self._known["batch",],) = self._node("Shape", [name], start=0, end=1)
    rows = Output(self._known["batch",], (1,), np.dtype(np.int64))
    if times == 1:
      return rows
    return self.op("Mul", rows, np.array([times], np.int64), shape=(1,))

  def _sizes(self, shape: tuple[Any, ...]) -> str:
    """Return the name of a shape."""
    key = ("sizes", *map(str, shape))
    if key not in self._known:
      parts = [self.name(self.size(n)) for n in shape]
      (self._known[key],) = self._node("Concat", parts, axis=0)
    return self._known[key]

  def name(self, value: Value, axis: int | None = None) -> str:
    """Return the name of a value; an array becomes a constant.

    `axis` is that of its output channels, along which it may be rounded.
    """
    if isinstance(value, Output):
      return value.name
    array = np.ascontiguousarray(value).reshape(value.shape)
    large = array.size >= _LARGE and array.dtype == np.float32
    key = (array.dtype, array.shape, axis, array.tobytes())
    if key not in self._known:
      own = self.names.get(id(value), "")
      rounded = axis if large else None
      self._known[key] = self._constant(array, own, rounded, large)
    return self._known[key]

  def _constant(
    self, array: np.ndarray, name: str, axis: int | None, large: bool
  ) -> str:
    """Add a constant, rounded if it is a weight."""
    name = name if name and name not in self._constants else self._new("c")
    if large and self._dtype == "float16":
      self._constants[name] = array.astype(np.float16)
      return self._node("Cast", [name], to=self._type(np.float32))[0]
    if axis is not None and self._dtype == "int8":
      rounded, scale = round_to_int8(array, axis)
      self._constants[name] = rounded
      self._constants[f"{name}.scale"] = scale
      given = [name, f"{name}.scale"]
      return self._node("DequantizeLinear", given, axis=axis)[0]
    self._constants[name] = array
    return name

  def cast(self, value: Value, dtype: Any) -> Value:
    """Return a value as another type."""
    if value.dtype == dtype:
      return value
    to = self._type(dtype)
    return self.op("Cast", value, shape=value.shape, dtype=dtype, to=to)

  def model(self, output: Value, name: str, shape: tuple[Any, ...]) -> Any:
    """Return the model with one output; what it does not need is left out."""
    onnx = self._onnx
    self._nodes.append(
      onnx.helper.make_node("Identity", [self.name(output)], [name])
    )
    needed, nodes = {name}, []
    for node in reversed(self._nodes):
      if needed & set(node.output):
        needed.update(node.input)
        nodes.append(node)
    constants = [
      onnx.numpy_helper.from_array(array, key)
      for key, array in self._constants.items()
      if key in needed
    ]
    dims = [n if isinstance(n, int) else str(n) for n in shape]
    graph = onnx.helper.make_graph(
      nodes[::-1],
      "sampler",
      self._inputs,
      [self._info(name, dims, output.dtype)],
      constants,
    )
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    return onnx.helper.make_model(
      graph,
      opset_imports=opsets,
      ir_version=_IR_VERSION,
      producer_name="jaxflow",
    )

  def _node(self, kind: str, names: list[str], **attributes: Any) -> list[str]:
    made = self._new(kind.lower())
    self._nodes.append(
      self._onnx.helper.make_node(kind, names, [made], **attributes)
    )
    return [made]

  def _new(self, stem: str) -> str:
    self._count += 1
    return f"{stem}_{self._count}"

  def _type(self, dtype: Any) -> int:
    return self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

  def _info(self, name: str, dims: list[Any], dtype: Any) -> Any:
    make: Callable[..., Any] = self._onnx.helper.make_tensor_value_info
    return make(name, self._type(dtype), dims)


def round_to_int8(
  array: np.ndarray, axis: int
) -> tuple[np.ndarray, np.ndarray]:
  """Round an array to whole numbers from -127 to 127 times a scale a channel.

  Args:
    array: Weights.
    axis: The axis of output channels.

  Returns:
    The whole numbers, int8, and the scales `[channels]`, float32.

  Example:
    >>> round_to_int8(np.array([[1.0, -2.0], [0.5, 0.1]], np.float32), 1)[0]
    array([[ 127, -127],
           [  64,    6]], dtype=int8)
  """
  others = tuple(i for i in range(array.ndim) if i != axis % array.ndim)
  largest = np.abs(array).max(axis=others, keepdims=True)
  scale = np.where(largest > 0, largest / np.float32(127), np.float32(1))
  rounded = np.rint(array / scale).astype(np.int8)
  return rounded, scale.reshape(-1).astype(np.float32)
