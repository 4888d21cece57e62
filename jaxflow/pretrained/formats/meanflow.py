"""MeanFlow as released in JAX: DiT with t and t - r, an average velocity.

Its time runs from data, 0, to noise, 1, and r <= t, as here; so do its signs.

References:
  Geng et al., 2025, arXiv:2505.13447: S to XL, patches 2, 4, 8.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from jaxflow import losses
from jaxflow.pretrained.formats import (
  TIMES_CONSTANT,
  Format,
  Imported,
  flax_layouts,
  layouts,
)
from jaxflow.pretrained.formats.dit import heads_note, num_heads
from jaxflow.pretrained.formats.flax_networks import (
  FILES,
  checkpoint,
  named,
  written,
)
from jaxflow.pretrained.torch_files import Tensors
from jaxflow.types import PyTree

SOURCE = "a checkpoint of MeanFlow as released, a folder of Orbax or msgpack"
_START = "net/"
_BLOCK = "blocks/layers_{}"
_DENSE = "_flax_linear"
_LABELS = "y_embedder/embedding_table/_flax_embedding/embedding"
_NAMES = {
  "patch": "x_embedder/proj",
  "time.hidden": f"t_embedder/mlp/layers_0/{_DENSE}",
  "time.output": f"t_embedder/mlp/layers_2/{_DENSE}",
  "interval.hidden": f"h_embedder/mlp/layers_0/{_DENSE}",
  "interval.output": f"h_embedder/mlp/layers_2/{_DENSE}",
  "label.table": _LABELS,
  "modulation.linear": f"final_layer/adaLN_modulation/layers_1/{_DENSE}",
  "output": f"final_layer/linear/{_DENSE}",
}
_BLOCK_NAMES = {
  "modulation.linear": f"adaLN_modulation/layers_1/{_DENSE}",
  "attention.qkv": f"attn/qkv/{_DENSE}",
  "attention.output": f"attn/proj/{_DENSE}",
  "expand": f"mlp/fc1/{_DENSE}",
  "contract": f"mlp/fc2/{_DENSE}",
}


def read(path: pathlib.Path, side: int = 32, heads: int = 0) -> Imported:
  """Read a network; the file says all but `side` and the number of heads."""
  found = checkpoint(path, SOURCE, start=_START)
  patch, _, channels, width = found.shape("x_embedder/proj/kernel", 4)
  rows, _ = found.shape(_LABELS, 2)
  found.shape(f"{_BLOCK.format(0)}/attn/qkv/{_DENSE}/kernel", 2)
  depth = found.count(_BLOCK.format(r"(\d+)/"))
  model = {
    "width": width,
    "depth": depth,
    "scan_layers": False,
    "num_heads": num_heads(width, depth, f"path={path}", heads),
    "patch_size": patch,
    "second_time": True,
  }
  shape = (side, side, channels)
  params, averages = found.params(
    model, _leaf_of(model), shape=shape, num_classes=rows - 1
  )
  return Imported(
    loss=losses.mean_flow_loss,
    sections={
      "model": {"name": "dit", **model},
      "loss": {"label_dropout": 0.1},
    },
    shape=shape,
    num_classes=rows - 1,
    params=params,
    averages=averages,
    latents=TIMES_CONSTANT if channels == 4 else None,
    notes=[
      *found.notes(),
      heads_note(model, heads),
      f"samples of {side} x {side}: the file does not say it",
    ],
  )


def write(model: Mapping[str, Any], params: PyTree) -> Tensors:
  """Return the arrays of a network."""
  return written(params, _leaf_of(model), _START)


def _leaf_of(
  model: Mapping[str, Any],
) -> Callable[[list[str], tuple[int, ...]], layouts.Leaf]:
  """Return what gives the leaf of every parameter, by its place and shape."""

  def leaf_of(place: list[str], shape: tuple[int, ...]) -> layouts.Leaf:
    module, name = named(place, _NAMES, _BLOCK_NAMES, _BLOCK)
    match module:
      case "patch":
        return flax_layouts.patches(name, shape, model["patch_size"])
      case "attention.qkv":
        return flax_layouts.heads((name,), shape, model["num_heads"])
    return layouts.same(name, shape)

  return leaf_of


FORMAT = Format(
  summary="MeanFlow as released in JAX, an average velocity (Orbax, msgpack)",
  read=read,
  write=write,
  files=FILES,
)
