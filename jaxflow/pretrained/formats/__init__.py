"""Published networks as networks of this library: one file a format.

A format reads files as others have published them and returns the network in
our terms, `Imported`: which network, on which path, what it predicts, and its
parameters. It writes parameters back under the published names. `FORMATS`
lists the files of this folder; each has a `FORMAT`.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxflow.errors import UsageError, did_you_mean
from jaxflow.pretrained.torch_files import Tensors
from jaxflow.types import LossFunction, PyTree

FORMATS = (
  "diffusers",
  "dit",
  "drifting",
  "edm",
  "edm2",
  "imf",
  "meanflow",
  "sit",
)


@dataclasses.dataclass(frozen=True)
class Latents:
  """A normalisation of latents, by channel: (latent - mean) / std."""

  mean: tuple[float, ...]
  std: tuple[float, ...]


# Latents of Stable Diffusion's autoencoder times 0.18215.
TIMES_CONSTANT = Latents((0.0,) * 4, (1 / 0.18215,) * 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Imported:
  """A published network in our terms.

  Attributes:
    loss: The loss of `jaxflow.losses` that trains such a network: the first
      method with this loss becomes the method of the run.
    sections: Sections of the config, as `jaxflow.config.update` takes them.
      "model" names the network and its options; "path", "loss" (its
      `prediction`), "flow_map", "sample" and others where they differ from the
      method's.
    shape: Shape of one sample, (H, W, C) of an image.
    num_classes: Number of labels, 0 for none.
    params: The parameters, a tree of NumPy arrays of the network's shapes.
    averages: Averages of the parameters by name; where "sampling" is absent,
      `params` stands for it.
    latents: The latents that are its samples; None where they are none.
    notes: Lines for the user: what was read, assumed or left out.
  """

  loss: LossFunction
  sections: Mapping[str, Any]
  shape: tuple[int, ...]
  num_classes: int
  params: PyTree
  averages: Mapping[str, PyTree] = dataclasses.field(default_factory=dict)
  latents: Latents | None = None
  notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
  """A format of published networks.

  Attributes:
    summary: What it is, in one line.
    read: `read(path) -> Imported`; raises UsageError, with `path=...` first,
      where the file is not of this format. A keyword argument of it is an
      option of `jaxflow import` that not every format has: `null_label`,
      `side`, `heads`.
    write: `write(model, params) -> tensors` by their published names; `model`
      has the options of the network, its `data_shape` and `num_classes`, and
      how it is used: `path`, an object of `jaxflow.paths`, `prediction`,
      `sigma_data` and `label_dropout`.
      Raises UsageError where the format has no place for a parameter.
    describe: `describe(model) -> strings` by name: what the names and shapes of
      the tensors do not say, for the header of the file. None where they say
      all.
    files: The files inside of a folder whose hashes count, by pattern.
  """

  summary: str
  read: Callable[..., Imported]
  write: Callable[[Mapping[str, Any], PyTree], Tensors]
  describe: Callable[[Mapping[str, Any]], dict[str, str]] | None = None
  files: Sequence[str] = ("*.safetensors", "*.bin", "*.json")


def format_of(name: str) -> Format:
  """Return a format; raise UsageError if there is none of that name.

  Example:
    >>> format_of("sit").describe is None
    True
  """
  if name not in FORMATS:
    raise UsageError(
      f"format={name!r} is unknown: {did_you_mean(name, FORMATS)}choose one of "
      f"{', '.join(FORMATS)}"
    )
  return importlib.import_module(f"{__name__}.{name}").FORMAT
