"""The network alone, under the names of a published format."""

import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxflow.exports import ExportFormat, Trained
from jaxflow.exports.writing import needed
from jaxflow.files import replace_file
from jaxflow.pretrained.formats import format_of


def published(name: str) -> ExportFormat:
  """Return a published format as one in which a run leaves."""
  target = format_of(name)

  def write(trained: Trained, out: pathlib.Path) -> str:
    save_file = needed(name, "safetensors.numpy", "latents").save_file
    params = jax.tree.map(np.asarray, trained.params)
    model = described(trained)
    tensors = target.write(model, params)
    header = target.describe(model) if target.describe else None
    replace_file(out, lambda draft: save_file(tensors, draft, header))
    count = sum(x.size for x in tensors.values())
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    return f"{out}: {len(tensors)} tensors, {count:,} numbers, {digest}"

  return ExportFormat(summary=target.summary, write=write, folder=False)


def described(trained: Trained) -> Mapping[str, Any]:
  """Return a network's options, and of which data and training it is."""
  model = trained.run.model
  return {
    **model.options,
    "data_shape": model.shape,
    "num_classes": model.num_classes,
    "path": model.source,
    "prediction": model.identity["prediction"],
    "sigma_data": model.identity.get("sigma_data", model.sigma_data),
    "label_dropout": model.label_dropout,
  }
