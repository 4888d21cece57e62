"""A hash of parameters, the same on every arrangement of devices."""

import hashlib

import jax

from jaxflow.parallel import processes
from jaxflow.types import PyTree


def parameters_hash(params: PyTree) -> str:
  """Return a hash of names, shapes and values, 16 hexadecimal digits."""
  found = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    value = processes.gather(leaf)
    name = jax.tree_util.keystr(path)
    found.update(f"{name} {value.dtype} {value.shape}".encode())
    found.update(value.tobytes())
  return found.hexdigest()[:16]
