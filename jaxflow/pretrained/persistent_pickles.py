"""Networks pickled with the source of their classes, and nothing of it run.

NVIDIA's `torch_utils.persistence` pickles an object as a call of
`_reconstruct_persistent_obj` with a dict: the source of its module, the name of
its class, its state. Unpickling there runs the source. Here the source is
dropped, and an object becomes a `Module`: a name and a state. Tensors stand in
such pickles as files of `torch.save` in bytes.

A pickle can run any program. This reader resolves the names of tensors, of
PyTorch's containers and of NumPy's numbers and refuses every other name.
"""

import dataclasses
import io
import pathlib
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxflow.errors import UsageError
from jaxflow.pretrained import torch_files
from jaxflow.pretrained.torch_files import Storage, Tensor, Tensors

_CONTAINERS = ("ModuleDict", "ModuleList", "Sequential")
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")


@dataclasses.dataclass
class Module:
  """An object of a class that is not here.

  Attributes:
    name: The name of its class.
    state: Its attributes; of a module of PyTorch also `_parameters`,
      `_buffers` and `_modules`.
  """

  name: str = ""
  state: dict[str, Any] = dataclasses.field(default_factory=dict)

  def __setstate__(self, state: Any) -> None:
    """Take what a pickle says of a container."""
    self.state = dict(state)


class _Dict(dict):
  """A dict whose keys are attributes as well, over there."""

  def __setstate__(self, state: Any) -> None:
    """Keep nothing."""


class _Dtype:
  """A type of numbers."""

  def __init__(self, code: Any, *rest: Any):
    dtype = np.dtype(str(code))
    if dtype.kind not in "biuf":
      raise pickle.UnpicklingError(f"it holds numbers of type {code}")
    self.dtype = dtype

  def __setstate__(self, state: Any) -> None:
    """Keep nothing but check the order of bytes."""
    if state[1] not in "<|":
      raise pickle.UnpicklingError("its numbers are big-endian")


class _Array:
  """An array of NumPy, which no network here needs."""

  def __init__(self, *rest: Any):
    del rest

  def __setstate__(self, state: Any) -> None:
    """Keep nothing."""


def read(path: pathlib.Path, part: str, source: str) -> Module:
  """Read one object of the dict that a file holds.

  Args:
    path: A file of `pickle.dump`.
    part: The key of the object; where the file holds an object and no dict, it
      is that object.
    source: Which file is meant, for messages.

  Raises:
    UsageError: If the file cannot be read so, or names a foreign class.
  """
  try:
    with path.open("rb") as stream:
      torch_files.check_start(stream, ".pkl")
      loaded = _Unpickler(stream).load()
  except torch_files.DAMAGE as error:
    reason = " ".join(str(error).split()) or type(error).__name__
    raise UsageError(
      f"path={path}: cannot be read as a pickled network ({reason}); get "
      f"{source}"
    ) from error
  found = loaded.get(part) if isinstance(loaded, dict) else loaded
  if not isinstance(found, Module):
    raise UsageError(f"path={path}: it holds no network {part!r}; get {source}")
  return found


def tensors_of(module: Module, prefix: str = "") -> Tensors:
  """Return the parameters and buffers of a module by their dotted names.

  Raises ValueError if the module is none of PyTorch's.
  """
  made: Tensors = {}
  for kind in ("_parameters", "_buffers"):
    for name, tensor in _mapping(module, kind).items():
      if isinstance(tensor, np.ndarray):
        made[f"{prefix}{name}"] = tensor
  for name, inner in _mapping(module, "_modules").items():
    if isinstance(inner, Module):
      made |= tensors_of(inner, f"{prefix}{name}.")
  return made


def child(module: Module, name: str) -> Module:
  """Return a module inside of another; raise ValueError if there is none."""
  found = _mapping(module, "_modules").get(name)
  if not isinstance(found, Module):
    raise ValueError(f"its {module.name} has no module {name}")
  return found


def _mapping(module: Module, name: str) -> Mapping[str, Any]:
  found = module.state.get(name)
  if not isinstance(found, dict):
    raise ValueError(f"its {module.name or 'object'} has no {name}")
  return found


class _Unpickler(torch_files.Unpickler):
  """Makes tensors, numbers, dicts and modules, and nothing else."""

  def __init__(self, stream: Any):
    super().__init__(stream, {})
    self._contents: dict[str, bytes] = {}

  def find_class(self, module: str, name: str, /) -> Any:
    """Return one of the few objects that a pickle may name."""
    # Functions are fresh, and classes take no attribute from a pickle.
    match module, name:
      case "torch_utils.persistence", "_reconstruct_persistent_obj":
        return lambda meta: _module(meta)
      case "torch.nn.modules.container", _ if name in _CONTAINERS:
        return Module
      case (("dnnlib.util" | "dnnlib"), "EasyDict"):
        return _Dict
      case (("builtins" | "__builtin__"), "set"):
        return set
      case "torch.storage", "_load_from_bytes":
        return lambda data: self._storage(data)
      case "torch._utils", ("_rebuild_tensor" | "_rebuild_tensor_v2"):
        return lambda storage, offset, shape, stride, *rest: torch_files.view(
          Tensor(storage, offset, tuple(shape), tuple(stride)),
          self._contents[storage.key],
        )
      case "torch._utils", "_rebuild_parameter":
        return lambda data, *rest: data
      case "numpy", "dtype":
        return _Dtype
      case "numpy", "ndarray":
        return _Array
      case _, "scalar" if module in _NUMPY:
        return lambda kind, data: np.frombuffer(data, kind.dtype)[0].item()
      case _, "_reconstruct" if module in _NUMPY:
        return lambda *rest: _Array()
      case "torch", ("float16" | "float32" | "float64"):
        return name
    return super().find_class(module, name)

  def _storage(self, data: bytes) -> Storage:
    storage, content = torch_files.read_row(io.BytesIO(data))
    if not isinstance(storage, Storage):
      raise pickle.UnpicklingError("it holds bytes that are no storage")
    key = str(len(self._contents))
    self._contents[key] = content(storage)
    return storage._replace(key=key)


def _module(meta: Any) -> Module:
  """Return the object of a persistent class; its source is dropped."""
  if meta.get("type") != "class" or not isinstance(meta.get("state"), dict):
    raise pickle.UnpicklingError("it holds a persistent object of no class")
  return Module(str(meta["class_name"]), dict(meta["state"]))
