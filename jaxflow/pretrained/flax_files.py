"""Named arrays of Flax checkpoints: msgpack files and Orbax folders.

A tree of dicts becomes names with slashes, `net/t_embedder/mlp/kernel`. Neither
kind of file holds code.
"""

import pathlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import serialization

from jaxflow.errors import UsageError
from jaxflow.pretrained import tensor_files
from jaxflow.pretrained.torch_files import Tensors

# The files that make a folder one of Orbax.
_ORBAX = ("_METADATA", "manifest.ocdbt")
_MSGPACK = ".msgpack"
# With which an .npy file starts.
_NPY = b"\x93NUMPY"
_FLAT = (tensor_files.SUFFIX, ".npz")
# Names under which Flax keeps parameters, whatever they are.
_WRAPPERS = ("params",)


def read(
  path: pathlib.Path, source: str, *, parts: Mapping[str, str]
) -> dict[str, Tensors]:
  """Read the parameters in a checkpoint as they are stored.

  Args:
    path: A file of `flax.serialization` (msgpack), a folder of Orbax, or the
      folder of a training that holds `checkpoint_<step>`, of which the last is
      read. Flat .safetensors and .npz files with such names are read too.
    source: Which file is meant, for messages.
    parts: The state's entries that are read, by the name that they get here;
      where there is no such entry the whole tree is the part "".

  Returns:
    The arrays of every part that is there, by name.

  Raises:
    UsageError: If it cannot be read as arrays.
  """
  place = _place(path)
  if place.suffix in _FLAT:
    return {"": tensor_files.read(place, source)}
  try:
    entries = sorted(parts.values())
    tree = _read_orbax(place, entries) if place.is_dir() else _restored(place)
  except Exception as error:  # It depends on the layer that was reading.
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    raise UsageError(
      f"path={path}: cannot be read as arrays ({reason}); get {source}"
    ) from error
  if not isinstance(tree, dict):
    raise UsageError(f"path={path}: holds no tree of arrays; get {source}")
  found = {
    name: _named(tree[entry]) for name, entry in parts.items() if entry in tree
  }
  return found or {"": _named(tree)}


def _place(path: pathlib.Path) -> pathlib.Path:
  """Return the file, or the folder of Orbax, in what the user gives."""
  if not path.is_dir() or _is_orbax(path):
    return path
  steps = {
    int(match[1]): child
    for child in path.iterdir()
    if (match := re.fullmatch(r"checkpoint_(\d+)", child.name))
  }
  files = sorted(path.glob(f"*{_MSGPACK}"))
  if steps:
    return steps[max(steps)]
  for name in ("params_ema", "checkpoints"):
    if (path / name).is_dir():
      return _place(path / name)
  if len(files) == 1:
    return files[0]
  return path


def _is_orbax(path: pathlib.Path) -> bool:
  return any((path / name).exists() for name in _ORBAX)


def _restored(path: pathlib.Path) -> Any:
  """Return the tree of a file of `flax.serialization`."""
  content = path.read_bytes()
  if content.startswith(_NPY):
    raise ValueError("it is no file of weights: give .msgpack or .safetensors")
  return serialization.msgpack_restore(content)


def _read_orbax(path: pathlib.Path, entries: Sequence[str]) -> Any:
  """Return the tree of a folder of Orbax, or those of its entries that count.

  An optimizer's arrays, twice as large, are left alone.
  """
  if not _is_orbax(path):
    raise ValueError("the folder holds no checkpoint")
  handler = ocp.PyTreeCheckpointHandler()
  place = epath.Path(path.absolute())
  metadata: Any = handler.metadata(place)
  tree = dict(getattr(metadata, "tree", metadata))
  tree = {k: tree[k] for k in entries if k in tree} or tree
  arguments = jax.tree.map(lambda _: ocp.RestoreArgs(np.ndarray), tree)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # Of devices that had it.
    return handler.restore(
      place,
      args=ocp.args.PyTreeRestore(
        tree, restore_args=arguments, partial_restore=True
      ),
    )


def _named(tree: Any) -> Tensors:
  """Return the arrays of a tree of dicts by name."""
  while isinstance(tree, dict) and [*tree] == [*_WRAPPERS]:
    tree = tree[_WRAPPERS[0]]
  return {name: np.asarray(array) for name, array in _leaves(tree, "")}


def _leaves(tree: Any, name: str) -> Iterator[tuple[str, Any]]:
  if not isinstance(tree, dict):
    yield name, tree
    return
  for key, child in tree.items():
    yield from _leaves(child, f"{name}/{key}" if name else str(key))
