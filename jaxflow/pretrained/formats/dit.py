"""DiT as released in PyTorch: class-conditional, 1,000 steps, noise prediction.

The network predicts the noise at the steps 0 to 999 of the linear schedule, so
its path is `discrete` and the time that it is given is the step. It was shown
null labels, so it can be guided. A variance that it learned is kept, and
nothing reads it.

References:
  Peebles and Xie 2022 (arXiv:2212.09748): DiT-S, B, L, XL, patches 2, 4, 8.
  Dhariwal, Nichol 2021 (arXiv:2105.05233): the diffusion.
"""

import functools
import math
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxflow import losses
from jaxflow.errors import UsageError
from jaxflow.models import SIZES, dit, unstack_blocks
from jaxflow.models.embeddings import position_table
from jaxflow.pretrained import tensor_files
from jaxflow.pretrained.formats import (
  TIMES_CONSTANT,
  Format,
  Imported,
  layouts,
)
from jaxflow.pretrained.torch_files import Tensors
from jaxflow.types import PyTree

SOURCE = "a checkpoint of DiT or SiT as released, .pt or .safetensors"
# A checkpoint of the training holds both, a released one neither.
_PARTS = {"sampling": ("ema",), "": ("model",)}
_POSITIONS = "pos_embed"
# Modules by place; the rest of a name follows by rule.
_NAMES = {
  "patch": "x_embedder.proj",
  "time.hidden": "t_embedder.mlp.0",
  "time.output": "t_embedder.mlp.2",
  "label.table": "y_embedder.embedding_table.weight",
  "modulation.linear": "final_layer.adaLN_modulation.1",
  "output": "final_layer.linear",
  "block.modulation.linear": "adaLN_modulation.1",
  "block.attention.qkv": "attn.qkv",
  "block.attention.output": "attn.proj",
  "block.expand": "mlp.fc1",
  "block.contract": "mlp.fc2",
}
_LAST = {"kernel": ".weight", "bias": ".bias"}


def read(
  path: pathlib.Path,
  sections: Callable[[], dict[str, Any]],
  sign: int = 1,
  options: Mapping[str, Any] | None = None,
  heads: int = 0,
) -> Imported:
  """Read a network of this architecture.

  `heads` is their number, 0 for that of its size, `sign` is that of its
  prediction in ours, `options` are further ones of `dit`.
  """
  where = f"path={path}"
  parts = {
    name: tensor_files.read(path, SOURCE, parts=part)
    for name, part in _PARTS.items()
  }
  if parts["sampling"].keys() != parts[""].keys() or _same(parts):
    parts.pop("sampling")
  model, shape, num_classes = _structure(parts[""], where, heads)
  model |= options or {}
  made = {
    name: _params(path, tensors, model, shape, num_classes, sign)
    for name, tensors in parts.items()
  }
  notes = [
    f"{len(parts[''])} tensors, {sum(x.size for x in parts[''].values()):,} "
    "numbers",
    heads_note(model, heads),
  ]
  if model["learned_variance"]:
    notes.append("its learned variance is kept, and nothing reads it")
  return Imported(
    loss=losses.flow_matching_loss,
    sections={"model": {"name": "dit", **model}, **sections()},
    shape=shape,
    num_classes=num_classes,
    params=made.pop(""),
    averages=made,
    latents=TIMES_CONSTANT if shape[-1] == 4 else None,
    notes=notes,
  )


def write(
  model: Mapping[str, Any], params: PyTree, sign: int = 1
) -> dict[str, np.ndarray]:
  """Return the tensors of a network of this architecture."""
  if "stacked" in params["blocks"]:
    params = {**params, "blocks": unstack_blocks(params["blocks"])}
  tree = _tree(params, model, sign)
  side = model["data_shape"][0] // model["patch_size"]
  table = position_table((side, side), model["width"])
  return {_POSITIONS: table[None], **layouts.write(params, tree)}


def _same(parts: Mapping[str, Tensors]) -> bool:
  """Return whether the file has one dict of tensors, not two."""
  a, b = parts.values()
  return all(np.array_equal(a[k], b[k]) for k in a)


def _structure(
  tensors: Tensors, where: str, heads: int
) -> tuple[dict[str, Any], tuple[int, int, int], int]:
  """Read options, shape of a sample and number of labels from the shapes."""

  def shape_of(name: str, dims: int) -> tuple[int, ...]:
    found = tensors[name].shape if name in tensors else ()
    if len(found) != dims or min(found) < 1:
      raise UsageError(
        f"{where}: it has no tensor {name} of {dims} sizes, so it is no DiT; "
        f"get {SOURCE}, or give another format"
      )
    return found

  width, channels, patch, _ = shape_of("x_embedder.proj.weight", 4)
  rows, _ = shape_of("y_embedder.embedding_table.weight", 2)
  outputs, _ = shape_of("final_layer.linear.weight", 2)
  _, tokens, _ = shape_of(_POSITIONS, 3)
  numbers = {re.match(r"blocks\.(\d+)\.", name) for name in tensors}
  depth = len({match[1] for match in numbers if match})
  side = math.isqrt(tokens)
  table = position_table((side, side), width)
  if side**2 != tokens or not np.allclose(
    tensors[_POSITIONS][0], table, atol=1e-5
  ):
    raise UsageError(
      f"{where}: its {_POSITIONS} are no sines and cosines of a square; this "
      "network has those alone"
    )
  if outputs not in (each := [patch**2 * channels * k for k in (1, 2)]):
    raise UsageError(
      f"{where}: its output has {outputs} values a patch, not {each[0]}, or "
      f"{each[1]} with a learned variance"
    )
  model = {
    "width": width,
    "depth": depth,
    "scan_layers": False,
    "num_heads": num_heads(width, depth, where, heads),
    "patch_size": patch,
    "second_time": False,
    "learned_variance": outputs == each[1],
  }
  return model, (side * patch, side * patch, channels), rows - 1


def num_heads(width: int, depth: int, where: str, given: int = 0) -> int:
  """Return the number of heads: as given, of a published size, or of 64.

  Raises UsageError if the number that is given does not divide the width, or,
  `where` first, if 64 does not.
  """
  if given:
    if given < 0 or width % given:
      raise UsageError(f"heads={given}: give a divisor of the width, {width}")
    return given
  if size := _published(width, depth):
    return size["num_heads"]
  if width % 64:
    raise UsageError(
      f"{where}: width {width} and depth {depth} are no published size, and "
      "heads of 64 features do not divide the width; give heads"
    )
  return width // 64


def heads_note(model: Mapping[str, Any], given: int) -> str:
  """Return how many heads there are, and who says it."""
  number, width = model["num_heads"], model["width"]
  reason = "as given"
  if not given:
    reason = "the file does not say it, " + (
      "models.SIZES has them for this width and depth"
      if _published(width, model["depth"])
      else "no published size: heads of 64 features are assumed, heads gives "
      "another number"
    )
  return f"{number} heads of {width // number} features: {reason}"


def _published(width: int, depth: int) -> Mapping[str, int] | None:
  """Return the size of this width and depth."""
  sizes = (x for x in SIZES.values() if x["width"] == width)
  return next((x for x in sizes if x["depth"] == depth), None)


def _params(
  path: pathlib.Path,
  tensors: Tensors,
  model: Mapping[str, Any],
  shape: tuple[int, int, int],
  num_classes: int,
  sign: int,
) -> PyTree:
  network = dit(**model, data_shape=shape, num_classes=num_classes)
  shapes = jax.eval_shape(network.init, jax.random.key(0))
  tree = _tree(shapes, model, sign)
  numbers = {
    name: tensor_files.as_float32(path, name, tensor, SOURCE)
    for name, tensor in tensors.items()
  }
  return layouts.read(numbers, tree, f"path={path}", ignored=[_POSITIONS])


def _tree(shapes: PyTree, model: Mapping[str, Any], sign: int) -> PyTree:
  """Return the leaf of every parameter, by its shape."""

  def leaf_of(place: list[str], shape: tuple[int, ...]) -> layouts.Leaf:
    *modules, last = place
    start = ""
    if modules[0] == "blocks":
      number = modules[1].removeprefix("block_")
      start, modules = f"blocks.{number}.", ["block", *modules[2:]]
    module = ".".join(modules if last in _LAST else [*modules, last])
    if module not in _NAMES:
      raise UsageError(
        f"network: the format has no name for its parameter {'.'.join(place)}"
      )
    name = f"{start}{_NAMES[module]}{_LAST.get(last, '')}"
    match modules[-1]:
      case "patch":
        return layouts.patches(name, shape, model["patch_size"])
      case "label":
        return layouts.same(name, shape)
      case "qkv":
        return layouts.heads((name,), shape, model["num_heads"])
      case "output" if len(modules) == 1 and sign < 0:
        return layouts.negated(layouts.linear(name, shape))
    return layouts.linear(name, shape)

  return layouts.leaves(shapes, leaf_of)


def _sections() -> dict[str, Any]:
  return {
    "path": {"name": "discrete"},
    "loss": {"prediction": "noise", "label_dropout": 0.1},
    "sample": {"nfe": 250, "sampler": {"name": "ddim"}},
    "evaluation": {"nfe": (250,)},
  }


FORMAT = Format(
  summary="DiT as released in PyTorch, learned variance or not",
  read=functools.partial(read, sections=_sections),
  write=write,
)
