"""`UNet2DModel` of the diffusers library; modules have the tensors' names."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxflow.errors import UsageError
from jaxflow.models import unet2d
from jaxflow.pretrained.formats import layouts
from jaxflow.pretrained.formats.diffusers_network import (
  LABEL_DROPOUT,
  Network,
  check,
  square,
  variance,
)
from jaxflow.pretrained.torch_files import Tensors
from jaxflow.types import PyTree

NETWORK = "unet2d"
_DOWN = ("DownBlock2D", "AttnDownBlock2D")
_UP = ("UpBlock2D", "AttnUpBlock2D")
# The few modules that have other names here.
_NAMES = {
  "time_embedding.hidden": "time_embedding.linear_1",
  "time_embedding.output": "time_embedding.linear_2",
}
# Modules of ours that UNet2DModel has not.
_OWN = ("interval", "guidance")
_CLASSES = "class_embedding.weight"


def read(
  config: Mapping[str, Any], tensors: Tensors, where: str, null_label: bool
) -> Network:
  """Read the network of a config.json and its tensors."""
  check(
    config,
    where,
    time_embedding_type=("positional",),
    time_embedding_dim=(None, 4 * config["block_out_channels"][0]),
    center_input_sample=(False,),
    mid_block_type=("UNetMidBlock2D",),
    mid_block_scale_factor=(1,),
    downsample_type=("conv",),
    upsample_type=("conv",),
    downsample_padding=(1, 0),
    act_fn=("silu", "swish"),
    class_embed_type=(None,),
    attn_norm_num_groups=(None, config.get("norm_num_groups", 32)),
    resnet_time_scale_shift=("default", "scale_shift"),
  )
  widths = tuple(config["block_out_channels"])
  down, up = config["down_block_types"], config["up_block_types"]
  unknown = ({*down} - {*_DOWN}) | ({*up} - {*_UP})
  attention = tuple(i for i, x in enumerate(down) if x == _DOWN[1])
  mirrored = tuple(i for i, x in enumerate(up[::-1]) if x == _UP[1])
  if unknown or mirrored != attention:
    raise UsageError(
      f"{where}: its blocks are {down} and {up}; known are "
      f"{', '.join(_DOWN + _UP)}, up like down"
    )
  channels = config.get("in_channels", 3)
  shape = (*square(config, where), channels)
  rows = config.get("num_class_embeds") or 0
  scale_shift = config.get("resnet_time_scale_shift") == "scale_shift"
  shift, half = config.get("freq_shift", 0), widths[0] // 2
  model = {
    "widths": widths,
    "layers": config.get("layers_per_block", 2),
    "attention": attention,
    "middle_attention": config.get("add_attention", True),
    "head_features": config.get("attention_head_dim", 8) or 0,
    "groups": config.get("norm_num_groups", 32),
    "epsilon": float(config.get("norm_eps", 1e-5)),
    "scale_shift": scale_shift,
    "padding": config.get("downsample_padding", 1),
    "second_time": False,
    "learned_variance": variance(channels, config.get("out_channels"), where),
    "max_period": 1e4 ** (half / (half - shift)),
    "sines_first": not config.get("flip_sin_to_cos", True),
    "dropout": float(config.get("dropout", 0.0)),
  }
  if scale_shift and model["middle_attention"]:
    raise UsageError(
      f"{where}: it scales and shifts, and its middle attends without a norm; "
      "there is no such network here"
    )
  num_classes = rows - null_label if rows else 0
  network = unet2d(**model, data_shape=shape, num_classes=num_classes)
  tree = _tree(jax.eval_shape(network.init, jax.random.key(0)))
  notes = []
  if rows and not null_label:
    row = np.zeros_like(tensors[_CLASSES][:1])
    tensors = {**tensors, _CLASSES: np.concatenate([tensors[_CLASSES], row])}
    notes = [
      f"{rows} labels and no null label, so it cannot be guided; --null_label "
      "says that the last one stands for none"
    ]
  return Network(
    model={"name": NETWORK, **model},
    shape=shape,
    num_classes=num_classes,
    label_dropout=LABEL_DROPOUT if num_classes and null_label else 0.0,
    params=layouts.read(tensors, tree, where),
    notes=notes,
  )


def write(model: Mapping[str, Any], params: PyTree) -> Tensors:
  """Return the tensors of a network, the row of its null label included."""
  del model
  return layouts.write(params, _tree(params))


def _tree(shapes: PyTree) -> PyTree:
  """Return the leaf of every parameter, by its place and shape."""

  def leaf_of(place: list[str], shape: tuple[int, ...]) -> layouts.Leaf:
    *modules, last = place
    if modules[0] in _OWN:
      raise UsageError(
        f"network: UNet2DModel has no place for its {'.'.join(place)}"
      )
    module = ".".join(modules)
    module = _NAMES.get(module, re.sub(r"_(\d+)(?=\.|$)", r".\1", module))
    name = f"{module}.{'bias' if last == 'bias' else 'weight'}"
    if last in ("table", "scale"):
      return layouts.same(name, shape)
    if modules[-1] == "conv_shortcut" and len(shape) == 2:
      return layouts.pointwise(name, shape)
    if len(shape) == 4:
      return layouts.convolution(name, shape)
    return layouts.linear(name, shape)

  return layouts.leaves(shapes, leaf_of)
