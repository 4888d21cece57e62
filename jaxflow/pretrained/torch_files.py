"""Named tensors from the files of PyTorch, without PyTorch, and from .npz.

`torch.save` writes a dict of tensors in one of two forms. Both pickle the dict
and leave a persistent id, ("storage", type, key, device, number of elements),
where numbers belong. Since version 1.6 the file is a zip archive with the
pickle in `data.pkl` and the numbers in `data/<key>`. Before, it is a row of
pickles (a magic number, the version 1001, facts about the machine, the dict,
the list of keys), then for each key its number of elements and the numbers.

A pickle can run any program. This reader resolves only what tensors are made
of and refuses every other name.
"""

import collections
import hashlib
import math
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable, Collection, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from jaxflow.errors import UsageError

Tensors = dict[str, np.ndarray]
# The tensors to read; None for all.
Names = Collection[str] | None

# With which a pickle and a zip archive start.
_STARTS = (b"\x80", b"PK")
_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_TYPES = {
  "FloatStorage": np.dtype("<f4"),
  "DoubleStorage": np.dtype("<f8"),
  "HalfStorage": np.dtype("<f2"),
  "LongStorage": np.dtype("<i8"),
}
DAMAGE = (
  *(pickle.UnpicklingError, zipfile.BadZipFile, struct.error, EOFError),
  *(ValueError, TypeError, KeyError, IndexError, AttributeError),
  *(OverflowError, OSError, RuntimeError, MemoryError),
)


class _Ignored:
  """Stands for the arguments of a training, which lie beside its tensors."""

  def __setstate__(self, state: Any) -> None:
    """Keep nothing."""


class Storage(NamedTuple):
  """A run of numbers in a file."""

  dtype: np.dtype
  key: str
  size: int


class Tensor(NamedTuple):
  """A view of a storage, in elements."""

  storage: Storage
  offset: int
  shape: tuple[int, ...]
  stride: tuple[int, ...]


def read(
  file: str, names: Collection[str], *, sha256: str, source: str
) -> Tensors:
  """Read named tensors from a file whose hash is known; others are left alone.

  Messages say by `source` which file is meant.
  """
  path = pathlib.Path(file).expanduser()
  if not path.is_file():
    raise UsageError(f"file={file}: there is no such file; get {source}")
  try:
    with path.open("rb") as stream:
      found = hashlib.file_digest(stream, "sha256").hexdigest()
  except OSError as error:
    raise UsageError(
      f"file={file}: cannot be read ({error.strerror}); get {source}"
    ) from error
  if found != sha256.lower():
    raise UsageError(
      f"file={file}: its sha256 is {found}, not {sha256}; get {source}, or "
      "give the sha256 of a conversion that you trust"
    )
  return read_any(path, names, f"file={file}", source)


def read_any(
  path: pathlib.Path,
  names: Names,
  where: str,
  source: str,
  parts: Sequence[str] = (),
) -> Tensors:
  """Read tensors, whatever the file's hash: nothing in it is run.

  Messages start with `where` and say by `source` which file is meant. Where the
  file holds dicts of tensors by the names `parts`, the first of them is read.
  """
  try:
    return _read(path, names, parts)
  except DAMAGE as error:
    reason = " ".join(str(error).split()) or type(error).__name__
    raise UsageError(
      f"{where}: cannot be read as tensors ({reason}); get {source}"
    ) from error


def _read(
  path: pathlib.Path, names: Names, parts: Sequence[str] = ()
) -> Tensors:
  """Read tensors of a file of any form."""
  if not zipfile.is_zipfile(path):
    with path.open("rb") as stream:
      check_start(stream, ".safetensors, .pt, .pth, .bin or .npz")
      return _read_stream(stream, names, parts)
  with zipfile.ZipFile(path) as archive:
    pickles = [n for n in archive.namelist() if n.endswith("data.pkl")]
    if pickles:
      return _read_archive(archive, pickles[0], names, parts)
  with np.load(path, allow_pickle=False) as arrays:
    wanted = arrays if names is None else names
    return {name: arrays[_present(name, arrays)] for name in wanted}


def check_start(stream: BinaryIO, kinds: str) -> None:
  """Raise UnpicklingError unless a file starts as one of weights does."""
  start = stream.read(2)
  stream.seek(0)
  if start and not start.startswith(_STARTS):
    raise pickle.UnpicklingError(f"it is no file of weights: give {kinds}")


def _read_archive(
  archive: zipfile.ZipFile, member: str, names: Names, parts: Sequence[str]
) -> Tensors:
  """Read the form with a zip archive."""
  root = member.removesuffix("data.pkl")
  order = f"{root}byteorder"
  if order in archive.namelist() and archive.read(order) != b"little":
    raise pickle.UnpicklingError("its numbers are big-endian")
  with archive.open(member) as stream:
    tensors = _part(_load(stream), parts)

  def content(storage: Storage) -> bytes:
    name = f"{root}data/{storage.key}"
    _check_length(storage, archive.getinfo(name).file_size)
    return archive.read(name)

  return _arrays(tensors, names, content)


def _read_stream(
  stream: BinaryIO, names: Names, parts: Sequence[str]
) -> Tensors:
  """Read the form with a row of pickles."""
  loaded, content = read_row(stream)
  return _arrays(_part(loaded, parts), names, content)


def read_row(stream: BinaryIO) -> tuple[Any, Callable[[Storage], bytes]]:
  """Read a row of pickles: what it holds, and the bytes of its storages."""
  if _load(stream) != _MAGIC or _load(stream) != _VERSION:
    raise pickle.UnpicklingError("it does not start as torch.save's files do")
  if not _load(stream).get("little_endian", True):
    raise pickle.UnpicklingError("its numbers are big-endian")
  storages: dict[str, Storage] = {}
  loaded = _load(stream, storages)
  keys = _load(stream)
  starts = {}
  for key in keys:
    (size,) = struct.unpack("<q", stream.read(8))
    starts[key] = stream.tell()
    length = storages[key].dtype.itemsize * size
    _check_length(storages[key], length)
    stream.seek(length, 1)

  def content(storage: Storage) -> bytes:
    stream.seek(starts[storage.key])
    return stream.read(storage.dtype.itemsize * storage.size)

  return loaded, content


def _load(stream: Any, storages: dict[str, Storage] | None = None) -> Any:
  """Unpickle one object, and collect the storages that it mentions."""
  return Unpickler(stream, {} if storages is None else storages).load()


class Unpickler(pickle.Unpickler):
  """Makes tensors, dicts, and nothing else."""

  def __init__(self, stream: Any, storages: dict[str, Storage]):
    super().__init__(stream)
    self._storages = storages

  def find_class(self, module: str, name: str, /) -> Any:
    """Return one of the few objects that a pickle may name."""
    match module, name:
      case "collections", "OrderedDict":
        return collections.OrderedDict
      case "torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2":
        # A fresh function: what a pickle does to it stays with the pickle.
        return lambda storage, offset, shape, stride, *rest: Tensor(
          storage, offset, tuple(shape), tuple(stride)
        )
      case "torch" | "torch.cuda", _ if name in _TYPES:
        return _TYPES[name]
      case "argparse", "Namespace":
        return _Ignored
    raise pickle.UnpicklingError(f"it asks for {module}.{name}, no tensor")

  def persistent_load(self, pid: Any, /) -> Storage:
    """Return the storage that a persistent id stands for."""
    kind, dtype, key, _, size, *view = pid
    if kind != "storage" or any(v is not None for v in view):
      raise pickle.UnpicklingError(f"it holds a {kind} of an unknown kind")
    storage = Storage(np.dtype(dtype), str(key), int(size))
    if self._storages.setdefault(storage.key, storage) != storage:
      raise pickle.UnpicklingError(f"storage {key} has two sizes")
    return storage


def _part(loaded: Any, parts: Sequence[str]) -> Any:
  """Return the first part of a dict that there is, or the dict itself."""
  if not isinstance(loaded, dict):
    return loaded
  inside = (loaded[x] for x in parts if isinstance(loaded.get(x), dict))
  return next(inside, loaded)


def _arrays(
  tensors: Any, names: Names, content: Callable[[Storage], bytes]
) -> Tensors:
  """Read the numbers of tensors."""
  if not isinstance(tensors, dict):
    raise pickle.UnpicklingError("it holds no dict of tensors")
  arrays = {}
  for name in tensors if names is None else names:
    tensor = tensors[_present(name, tensors)]
    if not isinstance(name, str) or not isinstance(tensor, Tensor):
      raise pickle.UnpicklingError(f"{name} is no tensor")
    arrays[name] = view(tensor, content(tensor.storage))
  return arrays


def view(tensor: Tensor, content: bytes) -> np.ndarray:
  """Return the array of a tensor; `content` is that of its storage."""
  storage, offset, shape, stride = tensor
  numbers = np.frombuffer(content, storage.dtype)
  # Strides that leave the storage would read foreign memory.
  last = offset + sum((n - 1) * k for n, k in zip(shape, stride, strict=True))
  inside = min(offset, *shape, *stride, 0) == 0 and last < len(numbers)
  if not inside or not 0 < math.prod(shape) <= len(numbers):
    raise pickle.UnpicklingError("a tensor lies outside its storage")
  strides = [k * storage.dtype.itemsize for k in stride]
  view = np.lib.stride_tricks.as_strided(numbers[offset:], shape, strides)
  return np.array(view)


def _check_length(storage: Storage, length: int) -> None:
  expected = storage.dtype.itemsize * storage.size
  if length != expected:
    raise pickle.UnpicklingError(
      f"storage {storage.key} has {length} bytes where {expected} are announced"
    )


def _present(name: str, tensors: Collection[str]) -> str:
  if name not in tensors:
    raise pickle.UnpicklingError(f"it has no {name}")
  return name
