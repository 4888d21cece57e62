"""`DiTTransformer2DModel` of the diffusers library.

Every block of this class has an embedding of times and labels of its own, of
which the first also conditions the output. Where all are equal, as in
conversions of DiT's own checkpoints, the network here has one.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxflow.errors import UsageError
from jaxflow.models import dit, unstack_blocks
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

NETWORK = "dit"
# Where older versions kept the table of positions.
_IGNORED = ("pos_embed.pos_embed",)
_EMBEDDING = "norm1.emb."
_NAMES = {
  "patch": "pos_embed.proj",
  "modulation.linear": "proj_out_1",
  "output": "proj_out_2",
}
_BLOCK_NAMES = {
  "embedding.time.hidden": f"{_EMBEDDING}timestep_embedder.linear_1",
  "embedding.time.output": f"{_EMBEDDING}timestep_embedder.linear_2",
  "embedding.label": f"{_EMBEDDING}class_embedder.embedding_table",
  "modulation.linear": "norm1.linear",
  "attention.output": "attn1.to_out.0",
  "expand": "ff.net.0.proj",
  "contract": "ff.net.2",
}
_TIME_FEATURES = 256


def read(
  config: Mapping[str, Any], tensors: Tensors, where: str, null_label: bool
) -> Network:
  """Read the network of a config.json and its tensors."""
  check(
    config,
    where,
    norm_type=("ada_norm_zero",),
    activation_fn=("gelu-approximate",),
    attention_bias=(True,),
    norm_elementwise_affine=(False,),
    upcast_attention=(False, True),
  )
  if null_label:
    raise UsageError("null_label=True: this class has a null label; leave out")
  heads, depth = config["num_attention_heads"], config["num_layers"]
  channels = config.get("in_channels", 4)
  shape = (*square(config, where), channels)
  half = _TIME_FEATURES // 2
  model = {
    "width": heads * config["attention_head_dim"],
    "depth": depth,
    "scan_layers": False,
    "num_heads": heads,
    "patch_size": config.get("patch_size", 2),
    "second_time": False,
    # Its lowest frequency is 1e-4 itself.
    "max_period": 1e4 ** (half / (half - 1)),
    "own_embeddings": not _equal(tensors, depth),
    "mlp_epsilon": float(config.get("norm_eps", 1e-5)),
    "learned_variance": variance(channels, config.get("out_channels"), where),
    "dropout": float(config.get("dropout", 0.0)),
  }
  num_classes = config["num_embeds_ada_norm"]
  network = dit(**model, data_shape=shape, num_classes=num_classes)
  shapes = jax.eval_shape(network.init, jax.random.key(0))
  params = layouts.read(
    tensors, _tree(_apart(shapes, depth), model), where, ignored=_IGNORED
  )
  if not model["own_embeddings"]:
    params = _joined(params)
  return Network(
    model={"name": NETWORK, **model},
    shape=shape,
    num_classes=num_classes,
    label_dropout=LABEL_DROPOUT,
    params=params,
    notes=[],
  )


def write(model: Mapping[str, Any], params: PyTree) -> Tensors:
  """Return the tensors of a network; an embedding of all goes to each block."""
  if "stacked" in params["blocks"]:
    params = {**params, "blocks": unstack_blocks(params["blocks"])}
  params = _apart(params, model["depth"])
  return layouts.write(params, _tree(params, model))


def _equal(tensors: Tensors, depth: int) -> bool:
  """Return whether all blocks embed alike."""
  start = f"transformer_blocks.0.{_EMBEDDING}"
  return all(
    other in tensors and np.array_equal(tensor, tensors[other])
    for name, tensor in tensors.items()
    if name.startswith(start)
    for i in range(1, depth)
    for other in [name.replace(".0.", f".{i}.", 1)]
  )


def _apart(params: PyTree, depth: int) -> PyTree:
  """Return a tree with one embedding, if it has, as one with one a block."""
  if "time" not in params:
    return params
  names = ("time", "label", "interval", "guidance")
  embedding = {name: params[name] for name in names if name in params}
  blocks = {
    f"block_{i}": {**params["blocks"][f"block_{i}"], "embedding": embedding}
    for i in range(depth)
  }
  rest = {k: v for k, v in params.items() if k not in embedding}
  return {**rest, "blocks": blocks}


def _joined(params: PyTree) -> PyTree:
  """Return a tree whose blocks embed alike as one with one embedding."""
  blocks = {
    name: {k: v for k, v in block.items() if k != "embedding"}
    for name, block in params["blocks"].items()
  }
  embedding = params["blocks"]["block_0"]["embedding"]
  return {**params, **embedding, "blocks": blocks}


def _tree(shapes: PyTree, model: Mapping[str, Any]) -> PyTree:
  """Return the leaf of every parameter, by its place and shape."""

  def leaf_of(place: list[str], shape: tuple[int, ...]) -> layouts.Leaf:
    *modules, last = place
    start, names = "", _NAMES
    kind = "bias" if last == "bias" else "weight"
    if modules[0] == "blocks":
      number = modules[1].removeprefix("block_")
      start, names = f"transformer_blocks.{number}.", _BLOCK_NAMES
      modules = modules[2:]
    module = ".".join(modules)
    if module == "attention.qkv":
      apart = [f"{start}attn1.to_{x}.{kind}" for x in "qkv"]
      return layouts.heads(apart, shape, model["num_heads"])
    if module not in names:
      raise UsageError(
        f"network: DiTTransformer2DModel has no place for its {'.'.join(place)}"
      )
    name = f"{start}{names[module]}.{kind}"
    if module == "patch":
      return layouts.patches(name, shape, model["patch_size"])
    if last == "table":
      return layouts.same(name, shape)
    return layouts.linear(name, shape)

  return layouts.leaves(shapes, leaf_of)
