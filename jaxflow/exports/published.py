"""The network alone, under the names of a published format."""

import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxflow.errors import UsageError
from jaxflow.exports import ExportFormat, Trained
from jaxflow.exports.writing import needed
from jaxflow.files import replace_file
from jaxflow.pretrained.formats import FORMATS, format_of


def published(name: str) -> ExportFormat:
  """Return a published format as one in which a run leaves.

  Raises:
    UsageError: If it can be read only.
  """
  target = format_of(name)
  write_tensors = target.write
  if write_tensors is None:
    able = [other for other in FORMATS if format_of(other).write]
    raise UsageError(
      f"format={name!r} can be read only: give one of {', '.join(able)}"
    )

  def write(trained: Trained, out: pathlib.Path) -> str:
    save_file = needed(name, "safetensors.numpy", "latents").save_file
    params = jax.tree.map(np.asarray, trained.params)
    tensors = write_tensors(described(trained), params)
    replace_file(out, lambda draft: save_file(tensors, draft))
    count = sum(x.size for x in tensors.values())
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    return f"{out}: {len(tensors)} tensors, {count:,} numbers, {digest}"

  return ExportFormat(summary=target.summary, write=write, folder=False)


def described(trained: Trained) -> Mapping[str, Any]:
  """Return the options of a network, its shape and its classes."""
  model = trained.run.model
  return {
    **model.options,
    "data_shape": model.shape,
    "num_classes": model.num_classes,
  }
