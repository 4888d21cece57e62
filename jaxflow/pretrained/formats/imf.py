"""Improved MeanFlow as released in JAX: a transformer with context tokens.

The network sees t - r, the guidance and its interval, and the label, as tokens
in front of those of the image. Its time runs from data, 0, to noise, 1, as
here. Of its two heads, a released file for inference holds the blocks of the
first alone: the second is then an output behind the shared blocks.

Published q and k turn pair by pair, ours in halves: features are reordered.

References:
  Geng et al., 2025, arXiv:2512.02012: B, M, L and XL, patch 2.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from jaxflow import losses
from jaxflow.errors import UsageError
from jaxflow.pretrained.formats import (
  Format,
  Imported,
  Latents,
  flax_layouts,
  layouts,
)
from jaxflow.pretrained.formats.flax_networks import (
  FILES,
  checkpoint,
  named,
  written,
)
from jaxflow.pretrained.torch_files import Tensors
from jaxflow.types import PyTree

SOURCE = "a checkpoint of improved MeanFlow as released, of Orbax or msgpack"
_START = "net/"
_DENSE = "_flax_linear"
_LABELS = "y_embedder/embedding_table/_flax_embedding/embedding"
_EMBEDDERS = {
  "interval": "h",
  "guidance.scale": "omega",
  "guidance.start": "cfg_t_start",
  "guidance.end": "cfg_t_end",
}
_TOKENS = {
  "label": "class_tokens",
  "scale": "omega_tokens",
  "start": "t_min_tokens",
  "end": "t_max_tokens",
  "time": "time_tokens",
}
_NAMES = {
  "patch": "x_embedder/proj",
  "label.table": _LABELS,
  **{
    f"{ours}.{layer}": f"{theirs}_embedder/mlp/layers_{number}/{_DENSE}"
    for ours, theirs in _EMBEDDERS.items()
    for layer, number in (("hidden", 0), ("output", 2))
  },
  **{f"context.{ours}": theirs for ours, theirs in _TOKENS.items()},
  "norm.scale": "u_final_layer/norm/kernel",
  "output": f"u_final_layer/linear/{_DENSE}",
  "head_1.norm.scale": "v_final_layer/norm/kernel",
  "head_1.output": f"v_final_layer/linear/{_DENSE}",
}
_BLOCK_NAMES = {
  "norm.scale": "norm1/kernel",
  "mlp_norm.scale": "norm2/kernel",
  "gates.attention": "attn_scale",
  "gates.mlp": "mlp_scale",
  "attention.qkv": "attn",
  "attention.query_norm.scale": "attn/q_norm/kernel",
  "attention.key_norm.scale": "attn/k_norm/kernel",
  "attention.output": f"attn/out_proj/{_DENSE}",
  "swish": f"mlp/w1/{_DENSE}",
  "expand": f"mlp/w3/{_DENSE}",
  "contract": f"mlp/w2/{_DENSE}",
}
# Channels of latents over ImageNet, as published.
_LATENTS = Latents(
  (0.86488, -0.27787343, 0.21616915, 0.3738409),
  (4.85503674, 5.31922414, 3.93725398, 3.9870003),
)
# Guidance and its interval with which scores were published, by depth and
# width.
_GUIDANCE = {
  (12, 768): (8.0, 0.4, 0.65),
  (24, 768): (10.5, 0.4, 0.6),
  (32, 1024): (10.5, 0.4, 0.6),
  (48, 1024): (8.0, 0.42, 0.62),
}


def read(path: pathlib.Path, side: int = 32) -> Imported:
  """Read a network; the file says all but the `side` of its samples."""
  found = checkpoint(path, SOURCE, start=_START)
  patch, _, channels, width = found.shape("x_embedder/proj/kernel", 4)
  rows, _ = found.shape(_LABELS, 2)
  shared, first, second = (
    found.count(rf"{name}_(\d+)/")
    for name in ("shared_blocks", "u_heads", "v_heads")
  )
  block = "shared_blocks_0" if shared else "u_heads_0"
  (features,) = found.shape(f"{block}/attn/q_norm/kernel", 1)
  _, hidden = found.shape(f"{block}/mlp/w1/{_DENSE}/kernel", 2)
  tokens = [found.shape(name, 2)[0] for name in _TOKENS.values()]
  if tokens[2] != tokens[3] or width % features:
    raise UsageError(
      f"path={path}: it has {tokens[2:4]} tokens of the interval's ends, and "
      f"heads of {features} of {width} features: no network of {SOURCE}"
    )
  model = {
    "width": width,
    "depth": shared + first,
    "scan_layers": False,
    "num_heads": width // features,
    "patch_size": patch,
    "sees_time": False,
    "second_time": True,
    "guidance_inputs": True,
    "heads": 2,
    "head_depth": first,
    "further_depth": second,
    "context": (*tokens[:3], tokens[4]),
    "positions": "none",
    "rotary": True,
    "norm": "rms",
    "qk_norm": True,
    "mlp": "swiglu",
    "mlp_width": hidden,
    "bias": False,
  }
  shape = (side, side, channels)
  params, averages = found.params(
    model, _leaf_of(model), shape=shape, num_classes=rows - 1
  )
  omega, start, end = _GUIDANCE.get((shared + first, width), (1.0, 0.0, 1.0))
  return Imported(
    loss=losses.improved_mean_flow_loss,
    sections={
      "model": {"name": "dit", **model},
      "flow_map": {"omega": omega, "t_start": start, "t_end": end},
    },
    shape=shape,
    num_classes=rows - 1,
    params=params,
    averages=averages,
    latents=_LATENTS if channels == 4 else None,
    notes=[
      *found.notes(),
      f"samples of {side} x {side}: the file does not say it",
      f"guidance {omega} for t from {start} to {end}: flow_map.omega, "
      "flow_map.t_start and flow_map.t_end change it",
      *(
        []
        if second == first
        else ["its second head has no blocks: train it with blocks of its own"]
      ),
    ],
  )


def write(model: Mapping[str, Any], params: PyTree) -> Tensors:
  """Return the arrays of a network."""
  return written(params, _leaf_of(model), _START)


def _leaf_of(
  model: Mapping[str, Any],
) -> Callable[[list[str], tuple[int, ...]], layouts.Leaf]:
  """Return what gives the leaf of every parameter, by its place and shape."""
  shared = model["depth"] - model["head_depth"]

  def leaf_of(place: list[str], shape: tuple[int, ...]) -> layouts.Leaf:
    block = ""
    if "blocks" in place:
      at = place.index("blocks")
      number = int(place[at + 1].removeprefix("block_"))
      kind, number = (
        ("v_heads", number)
        if at
        else ("shared_blocks", number)
        if number < shared
        else ("u_heads", number - shared)
      )
      block, place = f"{kind}_{number}", place[at:]
    module, name = named(place, _NAMES, _BLOCK_NAMES, block)
    match module:
      case "patch":
        return flax_layouts.patches(name, shape, model["patch_size"])
      case "attention.qkv":
        names = [f"{block}/attn/{x}_proj/{_DENSE}/kernel" for x in "qkv"]
        return flax_layouts.heads(names, shape, model["num_heads"], pairs=True)
      case "attention.query_norm.scale" | "attention.key_norm.scale":
        return flax_layouts.halves(layouts.same(name, shape))
    return layouts.same(name, shape)

  return leaf_of


FORMAT = Format(
  summary="improved MeanFlow as released in JAX (Orbax, msgpack)",
  read=read,
  write=write,
  files=FILES,
)
