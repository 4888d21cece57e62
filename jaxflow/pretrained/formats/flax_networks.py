"""Published transformers in Flax checkpoints: shapes say what they are."""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax

from jaxflow.errors import UsageError
from jaxflow.models import dit, unstack_blocks
from jaxflow.pretrained import flax_files, tensor_files
from jaxflow.pretrained.formats import layouts
from jaxflow.pretrained.torch_files import Tensors
from jaxflow.types import PyTree

# The entries of a Flax train state, by the names of averages here.
_PARTS = {"": "params", "sampling": "ema_params"}
# Files whose hashes count: those of Orbax have any name.
FILES = ("*",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
  """A checkpoint that holds one network, or it and its average.

  Attributes:
    path: Where it is.
    source: Which file is meant, for messages.
    start: What stands before the names of all parameters.
    parts: Arrays by name, of the parameters, "", and the average, "sampling".
  """

  path: pathlib.Path
  source: str
  start: str
  parts: Mapping[str, Tensors]

  @property
  def tensors(self) -> Tensors:
    """The arrays of the first part."""
    return self.parts[min(self.parts)]

  def shape(self, name: str, dims: int) -> tuple[int, ...]:
    """Return the shape of an array; raise UsageError if there is none."""
    found = self.tensors[name].shape if name in self.tensors else ()
    if len(found) != dims or min(found) < 1:
      raise UsageError(
        f"path={self.path}: it has no array {self.start}{name} of {dims} "
        f"sizes; get {self.source}, or give another format"
      )
    return found

  def count(self, pattern: str) -> int:
    """Return how many numbers the group of a pattern of names has."""
    found = (re.match(pattern, name) for name in self.tensors)
    return len({match[1] for match in found if match})

  def params(
    self,
    model: Mapping[str, Any],
    leaf_of: Callable[[list[str], tuple[int, ...]], layouts.Leaf],
    *,
    shape: tuple[int, int, int],
    num_classes: int,
    ignored: Collection[str] = (),
  ) -> tuple[PyTree, dict[str, PyTree]]:
    """Return parameters and averages of the transformer of these options."""
    network = dit(**model, data_shape=shape, num_classes=num_classes)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    tree = layouts.leaves(shapes, leaf_of)

    def made(tensors: Tensors) -> PyTree:
      numbers = {
        name: tensor_files.as_float32(self.path, name, tensor, self.source)
        for name, tensor in tensors.items()
        if name not in ignored
      }
      return layouts.read(numbers, tree, f"path={self.path}")

    averages = {name: made(tensors) for name, tensors in self.parts.items()}
    first = averages.pop(min(averages))
    return first, averages

  def notes(self) -> list[str]:
    """Return what is said of the file."""
    tensors = self.tensors
    which = {"": "parameters and their average", "sampling": "the average"}
    parts = " and ".join(which[name] for name in self.parts)
    return [
      f"{len(tensors)} arrays, {sum(x.size for x in tensors.values()):,} "
      f"numbers",
      *([f"the file holds {parts}"] if len(self.parts) > 1 else []),
    ]


def checkpoint(path: pathlib.Path, source: str, *, start: str) -> Checkpoint:
  """Read a checkpoint; `start` is what stands before all names."""
  parts = flax_files.read(path, source, parts=_PARTS)
  return Checkpoint(
    path=path,
    source=source,
    start=start,
    parts={
      part: {name.removeprefix(start): x for name, x in tensors.items()}
      for part, tensors in parts.items()
    },
  )


def written(
  params: PyTree,
  leaf_of: Callable[[list[str], tuple[int, ...]], layouts.Leaf],
  start: str,
) -> Tensors:
  """Return the arrays of parameters by their published names."""
  if "stacked" in params["blocks"]:
    params = {**params, "blocks": unstack_blocks(params["blocks"])}
  tensors = layouts.write(params, layouts.leaves(params, leaf_of))
  return {f"{start}{name}": tensor for name, tensor in tensors.items()}


def named(
  place: list[str],
  names: Mapping[str, str],
  block_names: Mapping[str, str],
  block: str,
) -> tuple[str, str]:
  """Return the module of a parameter here, and its published name.

  `block` is the published name of a block, with the number as "{}".
  """
  *modules, last = place
  start, known = "", names
  if modules[:1] == ["blocks"]:
    start = block.format(modules[1].removeprefix("block_")) + "/"
    modules, known = modules[2:], block_names
  module = ".".join([*modules, last])
  if module in known:
    return module, start + known[module]
  module = ".".join(modules)
  if module not in known:
    raise UsageError(
      f"network: the format has no name for its parameter {'.'.join(place)}"
    )
  return module, f"{start}{known[module]}/{last}"
