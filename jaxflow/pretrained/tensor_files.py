"""Named tensors of any file: safetensors, PyTorch's, or .npz."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from jaxflow.errors import UsageError
from jaxflow.pretrained import torch_files
from jaxflow.pretrained.torch_files import Tensors

SUFFIX = ".safetensors"


def read(
  path: pathlib.Path, source: str, *, parts: Sequence[str] = ()
) -> Tensors:
  """Read all tensors of a file as they are stored; nothing in it is run.

  Args:
    path: A .safetensors file, one of `torch.save` (.bin, .pt, .pth), or an
      .npz file.
    source: Which file is meant, for messages.
    parts: A file of PyTorch may hold several dicts of tensors by name, the
      averaged ones beside the trained ones: the first of these names that is
      there is read.

  Raises:
    UsageError: If the file cannot be read as tensors.
  """
  if path.suffix == SUFFIX:
    return _read_safetensors(path, source)
  return torch_files.read_any(path, None, f"path={path}", source, parts)


def header(path: pathlib.Path, source: str) -> Mapping[str, str]:
  """Return what the header of a .safetensors file says beside the tensors."""
  _read_safetensors(path, source)
  from safetensors import safe_open

  with safe_open(path, framework="numpy") as file:
    return file.metadata() or {}


def as_float32(
  path: pathlib.Path, name: str, array: np.ndarray, source: str
) -> np.ndarray:
  """Return a tensor as float32; raise UsageError if it holds no numbers."""
  try:
    # Strings of digits, and complex numbers, would become numbers.
    if array.dtype.kind not in "OSUcMm":
      return np.asarray(array, np.float32)
  except (TypeError, ValueError):
    pass
  raise UsageError(
    f"path={path}: {name} has {array.dtype} values, not numbers; get {source}"
  )


def _read_safetensors(path: pathlib.Path, source: str) -> Tensors:
  try:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file
  except ImportError as error:
    raise UsageError(
      f"path={path}: .safetensors files need the package safetensors; "
      "pip install 'jaxflow-generative[latents]', or give a .bin file"
    ) from error
  try:
    return load_file(path)
  except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
    reason = " ".join(str(error).split())
    raise UsageError(
      f"path={path}: cannot be read as tensors ({reason}); get {source}"
    ) from error
