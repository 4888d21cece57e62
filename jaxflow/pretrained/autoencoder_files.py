"""Published weights of Stable Diffusion's autoencoder, from local files.

Tensors have the names of the diffusers library. Names of modules are places in
the tree of parameters, so a name is converted part by part; a kernel of a
convolution is [out, in, height, width] there, one of a linear map [out, in].
"""

import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np

from jaxflow.errors import UsageError
from jaxflow.pretrained import tensor_files, torch_parameters
from jaxflow.pretrained.autoencoder import (
  DECODER,
  ENCODER,
  Autoencoder,
  autoencoder,
)
from jaxflow.pretrained.autoencoder_parts import GROUPS
from jaxflow.pretrained.torch_files import Tensors
from jaxflow.types import PyTree

SOURCE = (
  "diffusion_pytorch_model.safetensors (or .bin) of stabilityai/sd-vae-ft-mse "
  "or another AutoencoderKL in diffusers' form"
)
FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
# Names of the maps of attention in older files.
_OLD_NAMES = {
  "query": "to_q",
  "key": "to_k",
  "value": "to_v",
  "proj_attn": "to_out.0",
}
_OLD_NAME = re.compile(rf"\.({'|'.join(_OLD_NAMES)})\.(weight|bias)$")


def read_tensors(path: pathlib.Path) -> Tensors:
  """Read all tensors of an autoencoder's file, float32, in PyTorch's layout.

  Their names are those of today. The file is a .safetensors file, one of
  `torch.save` (.bin, .pth), an .npz file, or a folder of the diffusers library.
  """
  path = path.expanduser()
  if path.is_dir():
    found = [path / name for name in FILES if (path / name).is_file()]
    if not found:
      raise UsageError(
        f"path={path}: the folder holds no {' or '.join(FILES)}; get it, or "
        "give the file"
      )
    path = found[0]
  if not path.is_file():
    raise UsageError(f"path={path}: there is no such file; get {SOURCE}")
  tensors = tensor_files.read(path, SOURCE)
  return {
    _OLD_NAME.sub(
      lambda m: f".{_OLD_NAMES[m[1]]}.{m[2]}", name
    ): tensor_files.as_float32(path, name, array, SOURCE)
    for name, array in tensors.items()
  }


def select_parts(tensors: Mapping[str, Any], parts: Collection[str]) -> Tensors:
  """Return the tensors of some parts, "encoder" for instance."""
  return {k: v for k, v in tensors.items() if k.split(".")[0] in parts}


def from_tensors(
  tensors: Mapping[str, np.ndarray],
  *,
  dtype: str = "float32",
  parts: Collection[str] = (*ENCODER, *DECODER),
) -> tuple[Autoencoder, PyTree]:
  """Make the autoencoder whose tensors these are; return it and its parameters.

  Its widths, layers and channels are read from the decoder's tensors. Raises
  UsageError unless these are the tensors of its `parts`.
  """
  model = autoencoder(**_structure(tensors), dtype=dtype)
  shapes = {name: model.shapes[name] for name in parts}
  names = torch_parameters.tensor_names(shapes, torch_parameters.dotted)
  _check_names(tensors, jax.tree.leaves(names))
  return model, torch_parameters.from_tensors(tensors, names, shapes, "tensors")


def _structure(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Read the options of `autoencoder` from the shapes of a decoder."""

  def shape_of(name: str) -> tuple[int, ...]:
    shape = tensors[name].shape
    if len(shape) != 4 or min(shape) < 1:
      raise UsageError(
        f"tensors: {name} has shape {shape}, a convolution's has four positive "
        f"sizes; get {SOURCE}"
      )
    return shape

  def width_of(level: int, block: int) -> int | None:
    name = f"decoder.up_blocks.{level}.resnets.{block}.conv1.weight"
    return shape_of(name)[0] if name in tensors else None

  widths: list[int] = []
  while (width := width_of(len(widths), 0)) is not None:
    widths.append(width)
  blocks = 0
  while width_of(0, blocks) is not None:
    blocks += 1
  first = "decoder.conv_in.weight"
  if blocks < 2 or first not in tensors:
    raise UsageError(
      f"tensors: it has no decoder.conv_in and decoder.up_blocks, so it is no "
      f"AutoencoderKL in diffusers' form; get {SOURCE}"
    )
  width = widths[-1]
  if width % GROUPS or any(other % width for other in widths):
    raise UsageError(
      f"tensors: its levels have {widths[::-1]} channels, not a multiple of "
      f"{GROUPS} and multiples of that; get {SOURCE}"
    )
  return {
    "width": width,
    "multipliers": tuple(other // width for other in reversed(widths)),
    "layers": blocks - 1,
    "latent_channels": shape_of(first)[1],
  }


def _check_names(
  tensors: Mapping[str, np.ndarray], names: Collection[str]
) -> None:
  missing, extra = set(names) - set(tensors), set(tensors) - set(names)
  for found, problem in ((missing, "has no"), (extra, "has an unknown")):
    if found:
      more = f" and {len(found) - 1} more" if len(found) > 1 else ""
      raise UsageError(
        f"tensors: it {problem} {min(found)}{more}; get {SOURCE}"
      )
