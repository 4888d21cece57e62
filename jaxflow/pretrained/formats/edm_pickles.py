"""What files of EDM's and EDM2's networks share: names, options, sections.

Published pickles say with which arguments their networks were made. A file of
`jaxflow export` has them in its header, class by class.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxflow import losses
from jaxflow.errors import UsageError
from jaxflow.pretrained import persistent_pickles, tensor_files
from jaxflow.pretrained.formats import Imported
from jaxflow.pretrained.formats.layouts import Leaf
from jaxflow.pretrained.persistent_pickles import Module
from jaxflow.pretrained.torch_files import Tensors

# The key under which a file holds the averaged network.
_PART = "ema"
# Where the header of a file of ours holds classes and arguments.
_HEADER = "networks"


def read(
  path: pathlib.Path, classes: Mapping[str, str], source: str
) -> tuple[Module, Module, Tensors]:
  """Read a preconditioned network: it, what is inside, all tensors.

  `classes` says for each known class which of its modules is inside.
  """
  if path.suffix == tensor_files.SUFFIX:
    net, inner = _described(path, source)
    tensors = tensor_files.read(path, source)
  else:
    net = persistent_pickles.read(path, _PART, source)
    inner = tensors = None
  if net.name not in classes:
    raise UsageError(
      f"path={path}: its network is a {net.name or 'container'}; known are "
      f"{', '.join(classes)}"
    )
  try:
    inner = inner or persistent_pickles.child(net, classes[net.name])
    if tensors is None:
      tensors = persistent_pickles.tensors_of(inner)
    tensors = {
      name: tensor_files.as_float32(path, name, tensor, source)
      for name, tensor in tensors.items()
    }
  except ValueError as error:
    raise UsageError(f"path={path}: {error}; get {source}") from error
  return net, inner, tensors


def describe(*classes: tuple[str, Mapping[str, Any]]) -> dict[str, str]:
  """Return the header of a network: it and what is inside, with arguments."""
  return {_HEADER: json.dumps(classes)}


def _described(path: pathlib.Path, source: str) -> tuple[Module, Module]:
  """Read what `describe` wrote."""
  header = tensor_files.header(path, source)
  try:
    net, inner = (
      Module(str(name), {"_init_kwargs": dict(arguments)})
      for name, arguments in json.loads(header[_HEADER])
    )
  except (KeyError, TypeError, ValueError) as error:
    raise UsageError(
      f"path={path}: its header does not say which network it is, under "
      f"{_HEADER!r}; get {source}, or a file of jaxflow export"
    ) from error
  return net, inner


def check_writable(model: Mapping[str, Any], name: str) -> None:
  """Raise UsageError unless a network is of a kind that can be written."""
  if model["name"] != name or model.get("heads", 1) > 1:
    raise UsageError(
      f"network: it is {model['name']!r} with {model.get('heads', 1)} head(s); "
      f"the format has the network {name!r} with one"
    )


def no_name(place: Sequence[str]) -> UsageError:
  """Return the error of a parameter that has no published name."""
  return UsageError(
    f"network: the format has no name for its parameter {'.'.join(place)}"
  )


def options(
  path: pathlib.Path, module: Module, defaults: Mapping[str, Any]
) -> dict[str, Any]:
  """Return the arguments that a module was made with, of a known type.

  Lists become tuples. Raises UsageError where one has another type than its
  default; a default of None takes any.
  """
  given = module.state.get("_init_kwargs")
  found = {**defaults, **(given if isinstance(given, dict) else {})}
  made = {}
  for name, default in defaults.items():
    value = found[name]
    value = tuple(value) if isinstance(value, list) else value
    if default is not None and not _alike(value, default):
      raise UsageError(
        f"path={path}: its {module.name} was made with {name}={value!r}; "
        f"known are values like {default!r}"
      )
    made[name] = value
  return made


def _alike(value: Any, default: Any) -> bool:
  if isinstance(default, tuple):
    return isinstance(value, tuple) and all(type(x) is int for x in value)
  if isinstance(default, float):
    return type(value) in (int, float)
  return type(value) is type(default)


def known(
  path: pathlib.Path, module: Module, found: Mapping[str, Any], **values: Any
) -> None:
  """Raise UsageError unless arguments have the one known value."""
  for name, value in values.items():
    if found[name] != value:
      raise UsageError(
        f"path={path}: its {module.name} was made with {name}={found[name]!r}; "
        f"known is {value!r}"
      )


def blocks(
  side: int, levels: int, num_blocks: int
) -> tuple[list[str], list[str]]:
  """Return the names of the blocks of encoder and decoder, in their order.

  Example:
    >>> blocks(8, 2, 1)[0]
    ['enc.8x8_block0', 'enc.4x4_down', 'enc.4x4_block0']
  """
  encoder, decoder = [], []
  for level in range(levels):
    at = f"{side >> level}x{side >> level}"
    encoder += [f"enc.{at}_down"] if level else []
    encoder += [f"enc.{at}_block{i}" for i in range(num_blocks)]
  for level in reversed(range(levels)):
    at = f"{side >> level}x{side >> level}"
    last = level == levels - 1
    first = ["in0", "in1"] if last else ["up"]
    decoder += [f"dec.{at}_{x}" for x in first]
    decoder += [f"dec.{at}_block{i}" for i in range(num_blocks + 1)]
  return encoder, decoder


def attention(name: str, shape: tuple[int, ...], features: int) -> Leaf:
  """Return the leaf of q, k, v: q of all heads, then k, then v, here.

  There the three stand beside one another, feature by feature, in a 1 x 1
  convolution.
  """
  width = shape[-1] // 3
  there = (width // features, features, 3)
  here = (3, width // features, features)
  rest = shape[:-1]
  sizes = (*rest, 1, 1) if rest else ()

  def read(tensors: Any) -> np.ndarray:
    split = tensors[0].reshape(*there, *rest)
    moved = split.transpose(2, 0, 1, *range(3, split.ndim))
    return moved.reshape(3 * width, *rest).T

  def write(array: np.ndarray) -> tuple[np.ndarray, ...]:
    split = array.T.reshape(*here, *rest)
    moved = split.transpose(1, 2, 0, *range(3, split.ndim))
    return (moved.reshape(3 * width, *sizes),)

  return Leaf((name,), ((3 * width, *sizes),), read, write)


def denoiser(sigma_data: float, **rest: Any) -> Imported:
  """Return a network that EDM's preconditioning makes a denoiser."""
  sections = {
    "path": {"name": "variance_exploding"},
    "loss": {"prediction": "edm", "sigma_data": sigma_data},
  }
  sections["model"] = rest.pop("model")
  return Imported(loss=losses.denoising_loss, sections=sections, **rest)
