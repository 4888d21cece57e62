"""Drifting generators as released in JAX: one call makes a sample of noise.

The network has no times. It sees the label, the guidance scale, and discrete
noise labels, which its noise decides here (`models.generator_inputs`). Its
output is the sample, so its flow map is the identity at t = 1 of the linear
path, and only one call means anything.

References:
  Deng et al., 2026, arXiv:2602.04770: B and L, of latents and of pixels.
"""

import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxflow import losses
from jaxflow.errors import UsageError
from jaxflow.pretrained.formats import (
  TIMES_CONSTANT,
  Format,
  Imported,
  flax_layouts,
  layouts,
)
from jaxflow.pretrained.formats.flax_networks import (
  FILES,
  checkpoint,
  named,
  written,
)
from jaxflow.pretrained.formats.layouts import Arrays, Leaf
from jaxflow.pretrained.torch_files import Tensors
from jaxflow.reading import reading
from jaxflow.types import PyTree

SOURCE = "a drifting generator as released, a folder with ema_params.msgpack"
_NETWORK = "LightningDiT_0"
_BLOCK = f"{_NETWORK}/blocks_{{}}"
_LABELS = "Embed_0/embedding"
_TABLE = "noise_embeds_{}/embedding"
_NAMES = {
  "patch": f"{_NETWORK}/TorchLinear_0/Dense_0",
  "table": f"{_NETWORK}/pos_embed",
  "label.table": _LABELS,
  "scale.embed.hidden": "TimestepEmbedder_0/TorchLinear_0/Dense_0",
  "scale.embed.output": "TimestepEmbedder_0/TorchLinear_1/Dense_0",
  "scale.norm.scale": "RMSNorm_0/weight",
  "noise.tables": _TABLE,
  "summary.linear": f"{_NETWORK}/TorchLinear_1/Dense_0",
  "summary.tokens": f"{_NETWORK}/cls_embed",
  "norm.scale": f"{_NETWORK}/FinalLayer_0/RMSNorm_0/weight",
  "modulation.linear": f"{_NETWORK}/FinalLayer_0/TorchLinear_0/Dense_0",
  "output": f"{_NETWORK}/FinalLayer_0/TorchLinear_1/Dense_0",
}
_BLOCK_NAMES = {
  "norm.scale": "RMSNorm_0/weight",
  "mlp_norm.scale": "RMSNorm_1/weight",
  "modulation.linear": "TorchLinear_0/Dense_0",
  "attention.qkv": "Attention_0/TorchLinear_0/Dense_0",
  "attention.output": "Attention_0/TorchLinear_1/Dense_0",
  "attention.query_norm.scale": "Attention_0/q_norm/weight",
  "attention.key_norm.scale": "Attention_0/k_norm/weight",
  "swish": "SwiGLUFFN_0/TorchLinear_0/Dense_0",
  "expand": "SwiGLUFFN_0/TorchLinear_1/Dense_0",
  "contract": "SwiGLUFFN_0/TorchLinear_2/Dense_0",
}


def read(path: pathlib.Path) -> Imported:
  """Read a network, with what a metadata.json beside it says of it."""
  found = checkpoint(path, SOURCE, start="")
  block = _BLOCK.format(0)
  first = f"{_NETWORK}/TorchLinear_0/Dense_0/kernel"
  pixels, width = found.shape(first, 2)
  rows, _ = found.shape(_LABELS, 2)
  (features,) = found.shape(f"{block}/Attention_0/q_norm/weight", 1)
  hidden, _ = found.shape(
    f"{block}/SwiGLUFFN_0/TorchLinear_2/Dense_0/kernel", 2
  )
  _, summary, _ = found.shape(f"{_NETWORK}/cls_embed", 3)
  _, tokens, _ = found.shape(f"{_NETWORK}/pos_embed", 3)
  labels, _ = found.shape(_TABLE.format(0), 2)
  patch, channels = _patch(pixels, path)
  side = math.isqrt(tokens)
  if side**2 != tokens or width % features:
    raise UsageError(
      f"path={path}: it has {tokens} patches, and heads of {features} of "
      f"{width} features: no network of {SOURCE}"
    )
  latent = channels == 4
  model = {
    "width": width,
    "depth": found.count(_BLOCK.format(r"(\d+)/")),
    "scan_layers": False,
    "num_heads": width // features,
    "patch_size": patch,
    "sees_time": False,
    "second_time": False,
    "summary_tokens": summary,
    # Of the best published scores: 1.1 for B on latents.
    "omega": 1.1 if latent and width == 768 else 1.0,
    "noise_labels": found.count(r"noise_embeds_(\d+)/"),
    "noise_classes": labels,
    "positions": "learned",
    "rotary": _turns(path),
    "norm": "rms",
    "qk_norm": True,
    "mlp": "swiglu",
    "mlp_width": hidden,
  }
  shape = (side * patch, side * patch, channels)
  params, averages = found.params(
    model, _leaf_of(model), shape=shape, num_classes=rows
  )
  return Imported(
    loss=losses.distillation_loss,
    sections={
      "model": {"name": "dit", **model},
      "flow_map": {"name": "identity"},
      "sample": {"nfe": 1},
      "evaluation": {"nfe": (1,)},
    },
    shape=shape,
    num_classes=rows,
    params=params,
    averages=averages,
    latents=TIMES_CONSTANT if latent else None,
    notes=[
      *found.notes(),
      f"guidance {model['omega']}: model.omega of the run's config.json",
      "one call makes a sample; the network knows no others",
      f"the file has no null label: row {rows} of the table is zero",
    ],
  )


def write(model: Mapping[str, Any], params: PyTree) -> Tensors:
  """Return the arrays of a network."""
  return written(params, _leaf_of(model), "")


def _patch(pixels: int, path: pathlib.Path) -> tuple[int, int]:
  """Return side and channels of patches, of latents or of RGB pixels."""
  for channels in (4, 3):
    side = math.isqrt(pixels // channels)
    if side**2 * channels == pixels:
      return side, channels
  raise UsageError(
    f"path={path}: its patches have {pixels} numbers, no square of 4 or 3 "
    f"channels: no network of {SOURCE}"
  )


def _turns(path: pathlib.Path) -> bool:
  """Return whether queries and keys are turned: no array says it."""
  folder = path if path.is_dir() else path.parent
  places = (folder / "metadata.json", folder / "params_ema/metadata.json")
  for place in places:
    if place.is_file():
      with reading(place, "get it again"):
        options = json.loads(place.read_text()).get("model_config") or {}
        return bool(options.get("use_rope", True))
  return True


def _leaf_of(
  model: Mapping[str, Any],
) -> Callable[[list[str], tuple[int, ...]], Leaf]:
  """Return what gives the leaf of every parameter, by its place and shape."""

  def leaf_of(place: list[str], shape: tuple[int, ...]) -> Leaf:
    module, name = named(place, _NAMES, _BLOCK_NAMES, _BLOCK)
    match module:
      case "attention.qkv":
        return flax_layouts.heads((name,), shape, model["num_heads"])
      case "table" | "summary.tokens":
        return flax_layouts.reshaped(name, shape, (1, *shape))
      case "label.table":
        return _without_null(name, shape)
      case "noise.tables":
        return _stacked(name, shape)
    return layouts.same(name, shape)

  return leaf_of


def _without_null(name: str, shape: tuple[int, ...]) -> Leaf:
  """Return the leaf of a table whose last row, of zeros, is not there."""
  return Leaf(
    (name,),
    ((shape[0] - 1, *shape[1:]),),
    lambda x: np.pad(x[0], ((0, 1), (0, 0))),
    lambda x: (x[:-1],),
  )


def _stacked(name: str, shape: tuple[int, ...]) -> Leaf:
  """Return the leaf of tables that are one array each, by number."""

  def read(tensors: Arrays) -> np.ndarray:
    return np.stack(list(tensors))

  names = tuple(name.format(i) for i in range(shape[0]))
  return Leaf(names, (shape[1:],) * shape[0], read, lambda x: [*x])


FORMAT = Format(
  summary="drifting generators as released in JAX (msgpack, Orbax)",
  read=read,
  write=write,
  files=FILES,
)
